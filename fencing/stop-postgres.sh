#!/bin/sh
# Stop this node's PostgreSQL, and succeed only when it is down. For fence.command:
#   command: [/etc/healthagent/fencing/stop-postgres.sh, --unit, postgresql@15-main]
#   command: [/etc/healthagent/fencing/stop-postgres.sh, --data, /var/lib/postgresql/15/main, --bin, /usr/lib/postgresql/15/bin]
# --unit asks systemd, which then does not start it again. --data asks pg_ctl: fast, then immediate.
# --as USER runs that through `sudo -n -u USER` (root for --unit, postgres for --data): see fencing/README.md.
set -u
unit='' data='' bin='' user='' fast=${FENCE_FAST_SECONDS:-15} immediate=${FENCE_IMMEDIATE_SECONDS:-10}

say() { echo "stop-postgres.sh: $*"; }
usage() { say "usage: stop-postgres.sh --unit UNIT | --data DIRECTORY [--bin DIRECTORY] [--as USER]" >&2; exit 2; }

while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --unit) unit=$2 ;;
    --data) data=$2 ;;
    --bin) bin=$2/ ;;
    --as) user=$2 ;;
    *) usage ;;
    esac
    shift 2
done
case $unit:$data in : | ?*:?*) usage ;; esac

# With -n sudo refuses instead of asking for a password that nobody is there to type.
as() { if [ -n "$user" ]; then sudo -n -u "$user" "$@"; else "$@"; fi; }

say "${HEALTHAGENT_NODE:-this node}: ${HEALTHAGENT_REASON:-by hand}: ${HEALTHAGENT_DETAIL:-}"
if [ -n "$unit" ]; then
    as systemctl stop "$unit" || { say "systemctl stop $unit failed"; exit 1; }
    state=$(systemctl is-active "$unit")
    case $state in
    inactive | failed) say "$unit is $state"; exit 0 ;;
    *) say "$unit is still $state"; exit 1 ;;
    esac
fi

# Exit status 3 of pg_ctl status: no server is running there. 4: no such directory, or no right to look.
down() { as "${bin}pg_ctl" status -D "$data" >/dev/null 2>&1; [ $? -eq 3 ]; }
if down; then
    say "was down already"
    exit 0
fi
as "${bin}pg_ctl" stop -D "$data" -m fast -w -t "$fast" ||
    as "${bin}pg_ctl" stop -D "$data" -m immediate -w -t "$immediate"
down || { say "the server of $data still runs, or pg_ctl may not look at it"; exit 1; }
say "the server of $data is down"
