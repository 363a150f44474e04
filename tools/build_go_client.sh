#!/bin/sh
# Builds the client of tests/clients/go, a program on the OpenTelemetry SDK for Go, into .cache/bin; does nothing if it is
# there, of these sources. Needs Go; the first build takes a minute, after fetch_telemetrygen.sh seconds.
# Its modules are those of go.sum: anything else is an error.
set -eu
cd "$(dirname "$0")/.."
source=tests/clients/go
stamp=.cache/bin/go_client.version
wanted=$(cat "$source/go.mod" "$source/go.sum" "$source"/*.go | cksum)
if [ -x .cache/bin/go_client ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
command -v go >/dev/null || { echo "build_go_client: go is missing: https://go.dev/dl/" >&2; exit 1; }
mkdir -p .cache/bin
output=$PWD/.cache/bin/go_client
(cd "$source" && CGO_ENABLED=0 go build -mod=readonly -o "$output" .)
echo "$wanted" >"$stamp"
