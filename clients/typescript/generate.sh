#!/usr/bin/env bash
# Makes src/gen from the protos, and from those of the error details of gRPC. Needs Go, Node and Python.
set -euo pipefail
cd "$(dirname "$0")"
[ -e node_modules/.bin/protoc-gen-es ] || npm install --no-package-lock --silent
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$scratch/python" googleapis-common-protos==1.70.0
mkdir -p "$scratch/protos/google/rpc" "$scratch/protos/linksgate"
cp "$scratch/python/google/rpc/error_details.proto" "$scratch/protos/google/rpc/"
cp -r ../../proto/linksgate/v1 "$scratch/protos/linksgate/"
rm -rf src/gen
go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate "$scratch/protos" --template buf.gen.yaml
