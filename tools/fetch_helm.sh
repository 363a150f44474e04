#!/bin/sh
# Builds helm into .cache/bin, for the chart's tests; does nothing if this version is there.
# Needs Go 1.26 or newer (an older one fetches a newer toolchain if it may); the first build takes 2 to 4 minutes.
set -eu
cd "$(dirname "$0")/.."
version=v4.3.1
stamp=.cache/bin/helm.version
if [ -x .cache/bin/helm ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
command -v go >/dev/null || { echo "fetch_helm: go is missing: https://go.dev/dl/" >&2; exit 1; }
mkdir -p .cache/bin
CGO_ENABLED=0 GOBIN="$PWD/.cache/bin" go install "helm.sh/helm/v4/cmd/helm@$version"
echo "$version" >"$stamp"
