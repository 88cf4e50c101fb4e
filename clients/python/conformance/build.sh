#!/usr/bin/env bash
# Installs the client as a user would, into a virtual environment at $1. Needs Python.
set -euo pipefail
directory=$(cd "$(dirname "$0")/.." && pwd)
python3 -m venv "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check "$directory"
