#!/bin/sh
# Make new sessions of this node's PostgreSQL read-only and end the present ones; replication goes on. For fence.command:
#   command: [/etc/healthagent/fencing/read-only.sh, "host=/var/run/postgresql user=postgres dbname=postgres"]
# The connection is of a superuser, by default libpq's. Undo, once this node may be written to again:
#   read-only.sh --undo "host=/var/run/postgresql user=postgres dbname=postgres"
# --as USER runs psql through `sudo -n -u USER`, for peer authentication: see fencing/README.md.
# A session may still turn it off for itself (SET default_transaction_read_only = off), and ALTER ROLE or ALTER DATABASE
# ... SET default_transaction_read_only = off comes before it: it stops mistakes, not intent.
set -u
user='' undo=''
while [ $# -gt 0 ]; do
    case $1 in
    --undo) undo=yes ;;
    --as) user=${2-}; shift ;;
    *) break ;;
    esac
    shift
done
conninfo=${1-dbname=postgres}
give_up=${FENCE_SECONDS:-20}

say() { echo "read-only.sh: $*"; }
as() { if [ -n "$user" ]; then sudo -n -u "$user" "$@"; else "$@"; fi; }
# -X: no ~/.psqlrc. The options: this session neither waits for a lock nor for a server that does not answer.
sql() {
    as env PGCONNECT_TIMEOUT=5 PGAPPNAME=fence PGOPTIONS='-c statement_timeout=5s' \
        psql -XAtq -v ON_ERROR_STOP=1 -d "$conninfo" -c "$1"
}
setting() { sql 'SHOW default_transaction_read_only'; } # of a new session, which is what clients will get

if [ -n "$undo" ]; then
    sql 'ALTER SYSTEM RESET default_transaction_read_only' || exit 1
    sql 'SELECT pg_reload_conf()' >/dev/null || exit 1
    say "reset; present sessions keep what they have, new ones get what the configuration says"
    exit 0
fi

say "${HEALTHAGENT_NODE:-this node}: ${HEALTHAGENT_REASON:-by hand}: ${HEALTHAGENT_DETAIL:-}"
sql 'ALTER SYSTEM SET default_transaction_read_only = on' || { say "could not be set"; exit 1; }
sql 'SELECT pg_reload_conf()' >/dev/null || { say "could not be reloaded"; exit 1; }

# Only when a new session gets it are the others ended: who comes back at once must find it in force.
until [ "$(setting)" = on ]; do
    give_up=$((give_up - 1))
    [ "$give_up" -gt 0 ] || { say "new sessions are not read-only: is it set for the role or the database?"; exit 1; }
    sleep 1
done
now=$(sql 'SELECT clock_timestamp()') || exit 1
left="backend_type = 'client backend' AND pid <> pg_backend_pid() AND backend_start < '$now'"
while :; do
    sql "SELECT count(pg_terminate_backend(pid)) || ' sessions told to end' FROM pg_stat_activity WHERE $left" || exit 1
    count=$(sql "SELECT count(*) FROM pg_stat_activity WHERE $left") || exit 1
    [ "$count" -gt 0 ] || break
    give_up=$((give_up - 1))
    [ "$give_up" -gt 0 ] || { say "$count sessions have not ended"; exit 1; }
    sleep 1
done
prepared=$(sql 'SELECT count(*) FROM pg_prepared_xacts') || exit 1
[ "$prepared" = 0 ] || say "$prepared prepared transactions remain: COMMIT PREPARED would still write"
say "new sessions are read-only, no older one is left"
