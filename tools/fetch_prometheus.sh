#!/bin/sh
# Unpacks Debian's prometheus into .cache/bin for the tests, where there is none; does nothing if there is one.
# Unpacked, not installed: the package would start a server on this machine. Needs no root if apt's lists are there.
set -eu
cd "$(dirname "$0")/.."
if command -v prometheus >/dev/null || [ -x .cache/bin/prometheus ]; then
    exit 0
fi
command -v apt-get >/dev/null || { echo "fetch_prometheus: prometheus is missing: install its package" >&2; exit 1; }
mkdir -p .cache/bin
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
cd "$fresh"
apt-get -qq download prometheus 2>/dev/null || { apt-get -qq update && apt-get -qq download prometheus; }
dpkg -x prometheus_*.deb .
cd - >/dev/null
mv "$fresh/usr/bin/promtool" .cache/bin/promtool
mv "$fresh/usr/bin/prometheus" .cache/bin/prometheus
