#!/bin/sh
# Makes .venv with a Python of 3.11 or newer and installs the pinned uv into it.
# Where the machine lacks something, it says what to install. PYTHON=... names the interpreter to use.
set -eu
cd "$(dirname "$0")/.."

python="" old="" bare=""
for name in ${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3 python}; do
    version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        old="$old $name ($version)"
    elif ! "$name" -c 'import ensurepip, venv' 2>/dev/null; then
        bare="$bare $name ($version)"
    else
        python=$name
        break
    fi
done

if [ -z "$python" ]; then
    if [ -n "$bare" ]; then
        echo "Found$bare, but without the venv and ensurepip modules, which setting up needs." >&2
        echo "Install them and run make again: apt-get install python3-venv (Debian, Ubuntu), or your system's like." >&2
    else
        echo "Kaizen needs Python 3.11 or newer. Found:${old:- no Python}." >&2
        echo "Install one and run make again: apt-get install python3 python3-venv (Debian 12, Ubuntu 24.04, or later)," >&2
        echo "or name one that lies elsewhere: make PYTHON=/path/to/python3.12 setup" >&2
    fi
    exit 1
fi

# Outside settings would send the install elsewhere, or make pip refuse it.
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
# A working environment is kept: somebody may be using it.
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/uv.txt
