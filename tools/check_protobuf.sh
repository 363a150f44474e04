#!/bin/sh
# Fails if the checked-in modules of our .proto files aren't what the generator makes of them.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh/tools"
cp -R schemas "$fresh/schemas"
cp tools/generate_protobuf.sh "$fresh/tools/"
rm -f "$fresh"/schemas/*_pb2.py "$fresh"/schemas/*_pb2.pyi
PYTHON="${PYTHON:-$PWD/.venv/bin/python}" "$fresh/tools/generate_protobuf.sh"
for module in schemas/*_pb2.py schemas/*_pb2.pyi "$fresh"/schemas/*_pb2.py "$fresh"/schemas/*_pb2.pyi; do
    name=schemas/$(basename "$module")
    cmp -s "$name" "$fresh/$name" || { echo "$name isn't up to date: make proto" >&2; exit 1; }
done
