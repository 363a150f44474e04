#!/bin/sh
# Installs the Debian packages that the tests' servers need and that are missing; where that isn't possible, names them.
set -eu
packages=
java_version() { java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'; }
if ! command -v java >/dev/null || [ "$(java_version)" -lt 17 ]; then
    packages="$packages default-jre-headless"
fi
command -v mvn >/dev/null || packages="$packages maven"
command -v strace >/dev/null || packages="$packages strace"
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing for the tests, please install:$packages (Java 17 or newer, Maven and strace)" >&2
    exit 1
fi
apt-get -qq update
# shellcheck disable=SC2086  # a list of names
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $packages
