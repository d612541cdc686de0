#!/bin/sh
# pgpool's failover_command, for those who let pgpool promote: promotes, unless the agents object.
#   failover_command = '/etc/pgpool2/failover.sh %d %P %m %H %r'
# In pgpool's environment: HEALTHAGENT_AGENTS="http://10.0.0.11:8008 http://10.0.0.12:8008 ..." (or HEALTHAGENT_CONFIG,
# a file with a section pgpool_sync), and PGUSER and PGPASSFILE of a role that may call pg_promote().
# pgpool marks the backend as down whatever happens here; after a veto pgpool-sync attaches it again.
set -u
failed=${1-} old_primary=${2-} main=${3-} host=${4-} port=${5-}

say() { echo "failover.sh: $*" >&2; }
veto() { say "VETO: $*"; exit 0; } # pgpool ignores the status; a veto is no failure

if [ "$failed" != "$old_primary" ]; then
    say "backend $failed is down, the primary is $old_primary: nothing to promote"
    exit 0
fi
# With no backend left %m is -1, and %H and %r are empty.
case $main in '' | *[!0-9]*) veto "no backend is left to promote (%m is '$main')" ;; esac
case $port in '' | *[!0-9]*) veto "backend $main has no port (%r is '$port')" ;; esac

objections=$("${HEALTHAGENT:-healthagent}" pgpool-sync --may-promote 2>&1) || veto "$objections"

say "promoting backend $main, $host:$port"
promoted=$(PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-5} psql -XAtq -h "$host" -p "$port" \
    -d "${PGDATABASE:-postgres}" -c 'SELECT pg_promote(true, 30)') || promoted=error
[ "$promoted" = t ] || { say "FAILED: backend $main was not promoted ($promoted)"; exit 1; }
say "backend $main takes writes"
