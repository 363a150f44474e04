#!/bin/sh
# Builds Prometheus 3, which takes remote write 2.0, into .cache/bin, for `make peers`; Debian has 2.42.
# Does nothing if this version is there. Needs Go; without service discovery the first build takes some minutes.
# Built as what a module of ours requires: Prometheus' own replaces some, which `go install` refuses.
set -eu
cd "$(dirname "$0")/.."
source=tests/peers/prometheus
build=.cache/prometheus3
stamp=.cache/bin/prometheus3.version
version=$(sed -n 's|^require github.com/prometheus/prometheus ||p' "$source/go.mod")
if [ -x .cache/bin/prometheus3 ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
command -v go >/dev/null || { echo "fetch_prometheus3: go is missing: https://go.dev/dl/" >&2; exit 1; }
mkdir -p .cache/bin "$build"
cp "$source/go.mod" "$build/go.mod"
(cd "$build" && GOFLAGS=-mod=mod CGO_ENABLED=0 go build -tags remove_all_sd -o ../bin/prometheus3 \
    github.com/prometheus/prometheus/cmd/prometheus)
echo "$version" >"$stamp"
