#!/bin/sh
# Makes .venv, with exactly what a lock names, and the command `tidegate` of this checkout.
# usage: [PYTHON=python3.12] tools/setup.sh        what serving needs: requirements.lock
#        [PYTHON=python3.12] tools/setup.sh dev    what developing needs beside it: requirements-dev.lock
set -eu
cd "$(dirname "$0")/.."

suits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: Tidegate needs Python 3.11 or newer, and ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>/dev/null || echo "not here")." >&2
    echo "setup: Install one, or name one: make setup PYTHON=/path/to/python3.12" >&2
    return 1
}

# Debian keeps the venv module's other half, ensurepip, in a package of its own.
ensure_venv_module() {
    if "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        tools/system.sh install python3-venv
    fi
    if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "setup: $1 lacks the venv module. On Debian, as root: apt-get install python3-venv" >&2
        return 1
    fi
}

if ! { suits .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    python=$(find_python)
    ensure_venv_module "$python"
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
lock=requirements.lock
ready=.venv/ready
if [ "${1:-}" = dev ]; then
    lock=requirements-dev.lock
    ready=.venv/ready-dev
fi
echo "setup: installing what $lock names"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
touch .venv/ready "$ready"
