#!/bin/sh
# Make sure that there is a database cluster in PGDATA before PostgreSQL starts: keep what is there, else copy the
# primary's, else begin a new one, which only the node named by INITDB_ON may do.
#
#   NODES          host names of all nodes, this one included
#   NODE           this one's
#   INITDB_ON      the one that may begin a new cluster; empty once there is one
#   RUN            a folder of its own, where PostgreSQL includes replication.conf from
#   REPLICATION_PASSWORD_FILE, AGENT_PASSWORD_FILE
set -eu
umask 077
port=${PGPORT:-5432}
new="$PGDATA.new"

# libpq reads a password only from a file that nobody else can read
escaped=$(sed 's/[\\:]/\\&/g' "$REPLICATION_PASSWORD_FILE")
printf '*:*:*:replicator:%s\n' "$escaped" >"$RUN/pgpass"

# A standby looks for the primary among all nodes whenever it connects, so it follows a promotion by itself.
hosts=$(echo "$NODES" | tr -s ' ' ',')
printf "primary_conninfo = 'host=%s port=%s user=replicator passfile=%s application_name=%s %s'\n" \
    "$hosts" "$port" "$RUN/pgpass" "$NODE" \
    'target_session_attrs=read-write connect_timeout=3' >"$RUN/replication.conf"

if [ -s "$PGDATA/PG_VERSION" ]; then
    chmod 0700 "$PGDATA" # a volume that is mounted anew may have been opened for the group, and PostgreSQL refuses that
    echo "$PGDATA holds PostgreSQL $(cat "$PGDATA/PG_VERSION") already: nothing to do"
    exit 0
fi
if [ -n "$(ls -A "$PGDATA" 2>/dev/null)" ]; then
    echo "$PGDATA is not empty, and no PostgreSQL: look at it, nothing was touched" >&2
    exit 1
fi

# What another node's PostgreSQL is: "f" a primary, "t" a standby, nothing when it does not answer.
in_recovery() {
    psql -XAt -c 'SELECT pg_is_in_recovery()' \
        "host=$1 port=$port user=replicator dbname=postgres passfile=$RUN/pgpass connect_timeout=3" 2>/dev/null || true
}

look() {
    primaries='' answered=0
    for host in $NODES; do
        [ "$host" != "$NODE" ] || continue
        answer=$(in_recovery "$host")
        [ -z "$answer" ] || answered=$((answered + 1))
        [ "$answer" != f ] || primaries="$primaries $host"
    done
}

copy_from() {
    echo "copying from $1"
    rm -rf "$new"
    # fails when the source goes away; the next round looks again
    if pg_basebackup -D "$new" -X stream -c fast \
        -d "host=$1 port=$port user=replicator passfile=$RUN/pgpass connect_timeout=3"; then
        : >"$new/standby.signal"
        finish
    fi
}

begin() {
    echo "beginning a new database cluster"
    rm -rf "$new"
    initdb -D "$new" --username=postgres --auth-local=peer --auth-host=scram-sha-256 \
        --data-checksums --encoding=UTF8 --locale=C.UTF-8 >/dev/null
    private=$(mktemp -d "$RUN/begin.XXXXXX")
    echo 'local all all trust' >"$private/pg_hba.conf" # in a folder that is ours alone, and only for this moment
    pg_ctl -D "$new" -s -w -l "$private/log" \
        -o "-c listen_addresses='' -c unix_socket_directories='$private' -c hba_file='$private/pg_hba.conf'" start
    # psql reads the passwords itself: they stand on no command line
    psql -X -q -v ON_ERROR_STOP=1 -h "$private" -U postgres postgres <<SQL
\set replication \`cat '$REPLICATION_PASSWORD_FILE'\`
\set agent \`cat '$AGENT_PASSWORD_FILE'\`
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication';
CREATE ROLE healthagent LOGIN PASSWORD :'agent';
GRANT pg_monitor TO healthagent;
SQL
    pg_ctl -D "$new" -s -w -m fast stop
    rm -rf "$private"
    finish
}

# Only now is it what PostgreSQL starts from: a half copy never is.
finish() {
    sync "$new" 2>/dev/null || sync
    [ ! -d "$PGDATA" ] || rmdir "$PGDATA"
    mv "$new" "$PGDATA"
    exit 0
}

said=''
say() {
    [ "$said" = "$1" ] || echo "$1"
    said=$1
}

while :; do
    look
    # shellcheck disable=SC2086  # words
    set -- $primaries
    if [ $# -eq 1 ]; then
        copy_from "$1"
    elif [ $# -gt 1 ]; then
        say "waiting: more than one node is a primary ($*): stop all but the rightful one"
    elif [ "$answered" -eq 0 ] && [ "$NODE" = "$INITDB_ON" ]; then
        begin
    elif [ "$answered" -gt 0 ]; then
        say "waiting: there are standbys and no primary: promote one"
    else
        say "waiting: no other node answers, and INITDB_ON is '$INITDB_ON', not $NODE"
    fi
    sleep "${AGAIN_AFTER:-2}"
done
