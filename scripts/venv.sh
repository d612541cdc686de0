#!/usr/bin/env bash
# Make .venv, or bring it up to date: `venv.sh run` for healthagent and its demo, `venv.sh dev` for its tests too.
# Needs Python 3.11 or later and nothing else; every package is pinned by its hash.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=$1

find_python() {
    local name
    for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "healthagent needs Python 3.11 or later, and there is none on the PATH: apt-get install -y python3-venv" >&2
    return 1
}

make_venv() {
    local python version
    python=$(find_python)
    rm -rf .venv
    # Debian and Ubuntu ship python3 without ensurepip, which is what makes pip available in a new venv.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" -ne 0 ]; then
            echo "$python cannot make a virtual environment. Run as root: apt-get install -y $version" >&2
            return 1
        fi
        scripts/apt-install.sh "$version"
    fi
    "$python" -m venv .venv
}

.venv/bin/python -c 'import pip' 2>/dev/null || make_venv

pip() {
    .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input install "$@"
}
echo "Installing the packages that requirements/ pins into .venv"
if [ "$kind" = dev ]; then
    pip --require-hashes -r requirements/dev.txt
else
    pip --require-hashes -r requirements/run.txt -r requirements/build.txt -r requirements/demo.txt
fi
pip --no-deps --no-build-isolation -e .
touch .venv/run.stamp
if [ "$kind" = dev ]; then
    touch .venv/dev.stamp
fi
