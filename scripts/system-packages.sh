#!/usr/bin/env bash
# Install the packages of tests/system-packages.txt whose program is missing; when not root, say which.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps haproxy and nft, not on a user's PATH

missing=()
while read -r program package; do
    case $program in
    '' | '#'*) continue ;;
    /*) compgen -G "$program" >/dev/null || missing+=("$package") ;;
    *) command -v "$program" >/dev/null || missing+=("$package") ;;
    esac
done <tests/system-packages.txt

if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    scripts/apt-install.sh "${missing[@]}"
else
    echo "Tests that need one of these programs will fail. To install them, run as root:" >&2
    echo "    apt-get install -y --no-install-recommends ${missing[*]}" >&2
fi
