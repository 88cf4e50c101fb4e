#!/usr/bin/env bash
# Makes src/linksgate/v1 from the protos, with the pinned generator. Needs Python.
set -euo pipefail
cd "$(dirname "$0")"
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python3 -m venv "$environment"
"$environment/bin/pip" install --quiet --disable-pip-version-check grpcio-tools==1.76.0 setuptools
rm -rf src/linksgate/v1
"$environment/bin/python" -m grpc_tools.protoc -I ../../proto \
  --python_out=src --pyi_out=src --grpc_python_out=src ../../proto/linksgate/v1/*.proto
touch src/linksgate/v1/__init__.py
# Files without a service have nothing in them.
rm -f src/linksgate/v1/{closing,error_reason,group,log,notification}_pb2_grpc.py
