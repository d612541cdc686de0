"""The words that every other module speaks.

All values are immutable. An `Instant` is CLOCK_BOOTTIME in seconds, always of the
machine that holds the value: instants of two machines are never compared, so what
crosses the network is an age and is turned back into an instant by its receiver,
counted from before the question was asked.
"""

from dataclasses import dataclass
from enum import StrEnum

Instant = float  # CLOCK_BOOTTIME seconds of this machine
Lsn = int  # WAL position in bytes
Tag = bool | int | float | str  # as the operator wrote it


def lsn_text(lsn: Lsn) -> str:
    """Spell an LSN as PostgreSQL does, for example 0/4000060."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


class Role(StrEnum):
    """What PostgreSQL says that it is: `pg_is_in_recovery()`."""

    PRIMARY = "primary"
    REPLICA = "replica"


class Reason(StrEnum):
    """Why a verdict is what it is: a stable word for labels, JSON and alerts."""

    # permission
    PRIMARY = "primary"
    FORCED_ON = "forced_on"
    REPLICA = "replica"
    REPLICA_NO_PRIMARY = "replica_no_primary"
    RUNNING = "running"
    # this agent
    STOPPING = "stopping"
    MAINTENANCE = "maintenance"
    WITNESS = "witness"
    FORCED_OFF = "forced_off"
    # this PostgreSQL
    STARTING_UP = "starting_up"
    POSTGRES_DOWN = "postgres_down"
    POSTGRES_STARTING = "postgres_starting"
    POSTGRES_STALE = "postgres_stale"
    AUTH_FAILED = "auth_failed"
    NO_CONNECTION_SLOT = "no_connection_slot"
    NO_NEW_CONNECTIONS = "no_new_connections"
    PRIVILEGE_MISSING = "privilege_missing"
    # primary
    NOT_PRIMARY = "not_primary"
    READ_ONLY = "read_only"
    STALE_TIMELINE = "stale_timeline"
    SYSTEM_ID_MISMATCH = "system_id_mismatch"
    START_GATE = "start_gate"
    ISOLATED_AT_START = "isolated_at_start"
    START_ALONE = "start_alone"
    LOST_CONFLICT = "lost_conflict"
    DIVERGED = "diverged"
    RIVAL_DRAINING = "rival_draining"
    RIVAL_SILENT = "rival_silent"
    ISOLATED = "isolated"
    STATE_UNSAVED = "state_unsaved"
    # replica
    NOT_REPLICA = "not_replica"
    NO_LOAD_BALANCE = "no_load_balance"
    REPLICATION_DOWN = "replication_down"
    FOLLOWS_STALE = "follows_stale"
    TIMELINE_DIFFERS = "timeline_differs"
    LAGGING = "lagging"
    LAG_UNKNOWN = "lag_unknown"
    NO_PRIMARY = "no_primary"
    # narrower questions
    NOT_SYNC = "not_sync"
    NOT_ASYNC = "not_async"
    NOT_QUORUM = "not_quorum"
    SYNC_UNKNOWN = "sync_unknown"
    NOT_STANDBY_LEADER = "not_standby_leader"
    TAG_DIFFERS = "tag_differs"
    REPLICATION_STATE_DIFFERS = "replication_state_differs"


@dataclass(frozen=True, slots=True)
class Receiver:
    """This node's walreceiver: one row of pg_stat_wal_receiver."""

    status: str
    host: str | None = None  # sender_host, as the operator spelled it in primary_conninfo
    port: int | None = None
    timeline: int | None = None
    latest_end_lsn: Lsn | None = None
    application_name: str | None = None  # what the primary's pg_stat_replication calls us
    addresses: tuple[str, ...] = ()  # what `host` resolves to here

    @property
    def streaming(self) -> bool:
        return self.status == "streaming"


@dataclass(frozen=True, slots=True)
class Follower:
    """One row of pg_stat_replication, as Patroni's JSON names its columns."""

    usename: str | None
    application_name: str | None
    client_addr: str | None
    state: str | None
    sync_state: str | None
    sync_priority: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One node's own description of its PostgreSQL, taken by one statement.

    LSNs are bytes. `asked_at` is the instant before the statement was sent, so an
    age counted from it includes the time that the answer took.
    """

    asked_at: Instant
    role: Role
    system_identifier: int | None
    timeline: int | None  # None on a replica that has not yet learned it
    server_version: int = 0  # 150018
    postmaster_started_at: str | None = None  # text for people and Patroni's JSON, never compared
    read_only: bool = False  # default_transaction_read_only for new sessions
    insert_lsn: Lsn | None = None  # primary
    flush_lsn: Lsn | None = None  # primary
    received_lsn: Lsn | None = None  # replica
    replayed_lsn: Lsn | None = None  # replica
    replayed_timestamp: str | None = None  # last replayed commit, text of its wall clock
    replay_age_seconds: float | None = None  # its age when asked, on the server's wall clock
    replay_paused: bool = False
    restores_from_archive: bool = False  # restore_command is set
    receiver: Receiver | None = None
    followers: tuple[Follower, ...] = ()
    missing: tuple[str, ...] = ()  # what the role may not see, for example "pg_stat_replication"

    def age(self, now: Instant) -> float:
        return now - self.asked_at

    @property
    def streaming(self) -> bool:
        return self.receiver is not None and self.receiver.streaming

    @property
    def replication_state(self) -> str | None:
        """Patroni's word: streaming, in archive recovery, or None."""
        if self.role is not Role.REPLICA:
            return None
        if self.streaming:
            return "streaming"
        return "in archive recovery" if self.restores_from_archive else None

    @property
    def wal_lsn(self) -> Lsn | None:
        """How far this node's WAL reaches: flushed on a primary, replayed on a replica."""
        return self.flush_lsn if self.role is Role.PRIMARY else self.replayed_lsn


@dataclass(frozen=True, slots=True)
class Failure:
    """Why PostgreSQL, or a peer, could not be asked."""

    reason: Reason
    detail: str  # one sentence, no secret in it
    at: Instant
    conclusive: bool = True  # False: it only fell silent, the last snapshot may still be true


@dataclass(frozen=True, slots=True)
class Local:
    """What is known of this node's own PostgreSQL."""

    snapshot: Snapshot | None = None
    failure: Failure | None = None  # set only while newer than the snapshot
    new_connection_failure: Failure | None = None  # the last one, while no newer attempt succeeded
    new_connection_failures: int = 0  # in a row: time-outs and refusals


@dataclass(frozen=True, slots=True)
class Verdict:
    """May this node be given that kind of traffic, and why (not).

    `detail` is one sentence with numbers; on a permission it holds nothing that
    changes from one moment to the next, so that a rendered answer can be reused.
    """

    ok: bool
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class LagLimit:
    """How far behind is still good enough: bytes, seconds, or neither."""

    lag_bytes: int | None = None
    lag_seconds: float | None = None

    @property
    def unlimited(self) -> bool:
        return self.lag_bytes is None and self.lag_seconds is None


NO_LIMIT = LagLimit()
