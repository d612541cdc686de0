"""What PostgreSQL is asked, and how its rows become a Snapshot.

One text for PostgreSQL 12 to 18. It calls the functions behind the pg_stat_* views, not the views: a view
takes a lock on itself, and pg_stat_replication one on pg_authid too, so that a VACUUM FULL could hold
the probe up. What is left reads shared memory. pg_control is a file, which a stalled disk blocks, so it is
read once per connection.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from healthagent.core.model import Follower, Instant, Receiver, Role, Snapshot

# The role is read first and once, and recovery ends only once: a row that says primary holds nothing from
# before the promotion. If it says replica and the promotion falls inside the statement, then it is a
# replica's last row, or pg_is_wal_replay_paused() raises 55000 and the poller asks over a new connection.
# Not the timeline of pg_control_checkpoint(): after a promotion that is the old one until a checkpoint ends.
POLL = """
WITH node AS MATERIALIZED (SELECT pg_is_in_recovery() AS in_recovery)
SELECT in_recovery,
       CASE WHEN NOT in_recovery THEN pg_walfile_name(pg_current_wal_lsn()) END AS wal_file,
       CASE WHEN NOT in_recovery THEN (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint END AS insert_lsn,
       CASE WHEN NOT in_recovery THEN (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint END AS flush_lsn,
       CASE WHEN in_recovery THEN (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::bigint END AS received_lsn,
       CASE WHEN in_recovery THEN (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint END AS replayed_lsn,
       CASE WHEN in_recovery THEN replayed.at END AS replayed_at,
       CASE WHEN in_recovery
            THEN extract(epoch FROM clock_timestamp() - replayed.at)::float8 END AS replay_age,
       CASE WHEN in_recovery THEN pg_is_wal_replay_paused() END AS replay_paused,
       coalesce(current_setting('restore_command', true), '') <> '' AS restores_from_archive,
       current_setting('default_transaction_read_only') = 'on' AS read_only,
       current_setting('server_version_num')::int AS server_version,
       pg_postmaster_start_time() AS postmaster_started_at,
       receiver.pid AS receiver_pid, receiver.status AS receiver_status,
       receiver.sender_host, receiver.sender_port, receiver.conninfo, receiver.received_tli,
       (receiver.latest_end_lsn - '0/0'::pg_lsn)::bigint AS latest_end_lsn,
       (SELECT json_agg(json_build_object(
                   'usename', pg_get_userbyid(session.usesysid), 'application_name', session.application_name,
                   'client_addr', host(session.client_addr), 'state', sender.state,
                   'sync_state', sender.sync_state, 'sync_priority', sender.sync_priority))
        FROM (SELECT * FROM pg_stat_get_wal_senders() ORDER BY pid LIMIT 64) AS sender
        CROSS JOIN LATERAL pg_stat_get_activity(sender.pid) AS session)::text AS followers
FROM node
CROSS JOIN LATERAL (SELECT pg_last_xact_replay_timestamp() AS at) AS replayed
LEFT JOIN pg_stat_get_wal_receiver() AS receiver ON in_recovery AND receiver.pid IS NOT NULL
"""

# A promotion writes min_recovery_end_timeline at once and timeline_id at its checkpoint, so take the greater.
# The source tells a default_transaction_read_only of our own role from one that other sessions get too.
CONNECTED = """
SELECT system.system_identifier,
       greatest(checkpoint.timeline_id, recovery.min_recovery_end_timeline) AS timeline,
       (SELECT source FROM pg_show_all_settings()
        WHERE name = 'default_transaction_read_only') AS read_only_source
FROM pg_control_system() AS system, pg_control_checkpoint() AS checkpoint, pg_control_recovery() AS recovery
"""

UNKNOWN = "unknown"  # the status of a receiver that this role may not look at
OWN_SETTING = (
    "client",
    "user",
    "database user",
    "session",
)  # pg_settings.source: ours alone, no other session's


@dataclass(frozen=True, slots=True)
class Connected:
    """What does not change while a connection lives: a server that restarts ends all its connections."""

    system_identifier: int | None = None
    timeline: int | None = None  # by pg_control: what a replica without a receiver is known to have reached
    read_only_is_ours: bool = False
    missing: tuple[str, ...] = ()

    def learned(self, timeline: int | None) -> "Connected":
        """Remember the highest timeline seen: a replica's never falls while its server runs."""
        if timeline is None or (self.timeline is not None and timeline <= self.timeline):
            return self
        return replace(self, timeline=timeline)


class _Poll(msgspec.Struct, frozen=True):
    """A row of POLL by its column names."""

    in_recovery: bool
    wal_file: str | None
    insert_lsn: int | None
    flush_lsn: int | None
    received_lsn: int | None
    replayed_lsn: int | None
    replayed_at: datetime | None
    replay_age: float | None
    replay_paused: bool | None
    restores_from_archive: bool
    read_only: bool
    server_version: int
    postmaster_started_at: datetime
    receiver_pid: int | None
    receiver_status: str | None
    sender_host: str | None
    sender_port: int | None
    conninfo: str | None
    received_tli: int | None
    latest_end_lsn: int | None
    followers: str | None


class _Connected(msgspec.Struct, frozen=True):
    """A row of CONNECTED by its column names."""

    system_identifier: int
    timeline: int
    read_only_source: str


def connected(row: Mapping[str, object]) -> Connected:
    """Read the row of CONNECTED."""
    read = msgspec.convert(dict(row), _Connected)
    return Connected(read.system_identifier, read.timeline, read.read_only_source in OWN_SETTING)


def snapshot(row: Mapping[str, object], known: Connected, asked_at: Instant) -> Snapshot:
    """Read a row of POLL.

    A role below pg_monitor sees that a receiver or a follower is there, but none of its columns: then the
    receiver's status is "unknown", a follower's state None, and `missing` names the view to be granted.
    """
    read = msgspec.convert(dict(row), _Poll)
    receiver = _receiver(read)
    followers = msgspec.json.decode(read.followers or "[]", type=tuple[Follower, ...])
    missing = list(known.missing)
    if receiver is not None and receiver.status == UNKNOWN:
        missing.append("pg_stat_wal_receiver")
    if any(follower.state is None for follower in followers):
        missing.append("pg_stat_replication")
    return Snapshot(
        asked_at=asked_at,
        role=Role.REPLICA if read.in_recovery else Role.PRIMARY,
        system_identifier=known.system_identifier,
        timeline=_timeline(read, known),
        server_version=read.server_version,
        postmaster_started_at=str(read.postmaster_started_at),
        read_only=read.read_only and not known.read_only_is_ours,
        insert_lsn=read.insert_lsn,
        flush_lsn=read.flush_lsn,
        received_lsn=read.received_lsn,
        replayed_lsn=read.replayed_lsn,
        replayed_timestamp=None if read.replayed_at is None else str(read.replayed_at),
        replay_age_seconds=read.replay_age,
        replay_paused=bool(read.replay_paused),
        restores_from_archive=read.restores_from_archive,
        receiver=receiver,
        followers=followers,
        missing=tuple(missing),
    )


def _timeline(read: _Poll, known: Connected) -> int | None:
    if read.wal_file is not None:
        return int(read.wal_file[:8], 16)
    return known.learned(_received_timeline(read)).timeline


def _received_timeline(read: _Poll) -> int | None:
    """What the receiver streams; before it has heard from its sender this is only what it will ask for."""
    return read.received_tli if read.latest_end_lsn is not None else None


def _receiver(read: _Poll) -> Receiver | None:
    if read.receiver_pid is None:
        return None
    return Receiver(
        status=read.receiver_status or UNKNOWN,
        host=read.sender_host,
        port=read.sender_port,
        timeline=_received_timeline(read),
        latest_end_lsn=read.latest_end_lsn,
        application_name=application_name(read.conninfo or ""),
    )


def application_name(conninfo: str) -> str | None:
    """Find what a walreceiver calls itself in the conninfo of pg_stat_wal_receiver.

    libpqrcv_get_conninfo() writes `keyword=value` without quotes, so a value with a blank in it ends where
    the next keyword begins. fallback_application_name is cluster_name, or walreceiver.
    """
    for keyword in ("application_name", "fallback_application_name"):
        found = re.search(rf"(?:^| ){keyword}=(.*?)(?= [a-z_]+=|$)", conninfo)
        if found:
            return found[1]
    return None
