#!/bin/sh
# Builds an OpenTelemetry Collector with the exporters of tests/peers/collector into .cache/bin, for `make peers`.
# Does nothing if it is there, of this version and with these exporters. Needs Go; the first build takes 3 to 5 minutes.
# go.mod is written by hand, since the builder's own asks for the newest of what the listed modules don't pin.
set -eu
cd "$(dirname "$0")/.."
version=v0.155.0
source=tests/peers/collector
build=.cache/collector
stamp=.cache/bin/otelcol.version
wanted="$version $(cat "$source/builder.yaml" "$source/go.mod" | cksum)"
if [ -x .cache/bin/otelcol ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
command -v go >/dev/null || { echo "fetch_collector: go is missing: https://go.dev/dl/" >&2; exit 1; }
mkdir -p .cache/bin "$build"
CGO_ENABLED=0 GOBIN="$PWD/.cache/bin" go install "go.opentelemetry.io/collector/cmd/builder@$version"
cp "$source/builder.yaml" "$build/builder.yaml"
(cd "$build" && ../bin/builder --config builder.yaml --skip-compilation --skip-get-modules)
cp "$source/go.mod" "$build/build/go.mod"
(cd "$build/build" && GOFLAGS=-mod=mod CGO_ENABLED=0 go build -o ../../bin/otelcol .)
echo "$wanted" >"$stamp"
