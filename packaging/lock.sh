#!/bin/bash
# Resolve requirements*.in into the lock files, with hashes and without naming where packages come from.
# Run by `make lock` after a change of a pinned version. Uses a virtual environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x build/lock/bin/pip-compile ]; then
    /usr/bin/python3 -m venv build/lock
    build/lock/bin/pip install -q pip-tools==7.6.2
fi
for name in requirements requirements-dev; do
    CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile --quiet --allow-unsafe \
        --generate-hashes --strip-extras --no-emit-index-url --no-emit-trusted-host \
        --no-emit-find-links --output-file "$name.lock" "$name.in"
done
