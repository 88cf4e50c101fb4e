#!/usr/bin/env bash
# Copies the protos, so that the crate holds all that it is built from.
set -euo pipefail
cd "$(dirname "$0")"
rm -rf proto
mkdir -p proto/linksgate/v1
cp ../../proto/linksgate/v1/*.proto proto/linksgate/v1/
