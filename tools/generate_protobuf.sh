#!/bin/sh
# Generates the checked-in modules of our .proto files. PYTHON names an interpreter that has grpcio-tools.
set -eu
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. schemas/*.proto
for stub in schemas/*_pb2.pyi; do
    # The stubs name Mapping without its arguments, which mypy's strict mode refuses.
    { echo '# mypy: disable-error-code="type-arg"'; cat "$stub"; } >"$stub.new"
    mv "$stub.new" "$stub"
done
