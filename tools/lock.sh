#!/bin/sh
# Pins requirements.txt and requirements-dev.txt, for every Python from 3.11 on and every system, with hashes.
# No index addresses: whoever installs has their own. Wheels only: nothing is compiled, or run, while installing.
# Versions that are pinned already stay, unless UPGRADE is set.
set -eu
cd "$(dirname "$0")/.."
lock() {
    output=$1
    shift
    # setuptools builds the project itself, which is installed without isolation.
    echo 'setuptools>=80' | .venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-annotate --only-binary :all: \
        --custom-compile-command 'make lock' ${UPGRADE:+--upgrade} "$@" --output-file "$output" pyproject.toml - >/dev/null
}
lock requirements.txt --extra demo
lock requirements-dev.txt --extra dev --constraint requirements.txt
