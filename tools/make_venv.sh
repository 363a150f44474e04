#!/bin/sh
# Makes .venv with PYTHON (python3), which must be 3.11 or newer; does nothing if it is there.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ ! -x .venv/bin/pip ] || exit 0
command -v "$python" >/dev/null || { echo "$python is missing: Python 3.11 or newer is needed" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$python is $("$python" --version), and 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2
    exit 1
}
# Debian keeps what venv needs in a package of its own.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends python3-venv
    else
        echo "please install the package python3-venv" >&2
        exit 1
    fi
fi
"$python" -m venv .venv
