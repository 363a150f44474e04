#!/bin/sh
# Generates the checked-in modules of our .proto files. PYTHON names an interpreter that has grpcio-tools.
set -eu
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. \
    schemas/control.proto schemas/deltas.proto schemas/remote_write.proto
