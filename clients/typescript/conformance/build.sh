#!/usr/bin/env bash
# Builds the client and its harness into dist/. Needs Node and npm.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -e node_modules/.bin/tsc ] || npm install --no-package-lock --silent
npx tsc
