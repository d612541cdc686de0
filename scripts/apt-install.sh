#!/usr/bin/env bash
# Install Debian or Ubuntu packages, as root, without starting a service of theirs.
set -euo pipefail

# Packages of servers start them; the tests start their own, on free ports.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi

echo "Installing with apt-get: $*"
# A new machine or image has no package lists.
apt-get install --simulate --no-install-recommends "$@" >/dev/null 2>&1 || apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >/dev/null
