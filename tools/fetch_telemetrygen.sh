#!/bin/sh
# Builds the OpenTelemetry project's telemetrygen into .cache/bin; does nothing if this version is there.
# Needs Go 1.26 or newer (an older one fetches a newer toolchain if it may); the first build takes 1 to 1.5 minutes.
set -eu
cd "$(dirname "$0")/.."
version=v0.161.0
module=github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen
stamp=.cache/bin/telemetrygen.version
if [ -x .cache/bin/telemetrygen ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
command -v go >/dev/null || { echo "fetch_telemetrygen: go is missing: https://go.dev/dl/" >&2; exit 1; }
mkdir -p .cache/bin
CGO_ENABLED=0 GOBIN="$PWD/.cache/bin" go install "$module@$version"
echo "$version" >"$stamp"
