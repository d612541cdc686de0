"""The words that every other module speaks.

All values are immutable. An `Instant` is CLOCK_BOOTTIME in seconds, always of the
machine that holds the value: instants of two machines are never compared, so what
crosses the network is an age and is turned back into an instant by its receiver,
counted from before the question was asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    REPLICA = "replica"
    REPLICA_NO_PRIMARY = "replica_no_primary"
    RUNNING = "running"
    # this agent
    STOPPING = "stopping"
    MAINTENANCE = "maintenance"
    WITNESS = "witness"
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


class Source(StrEnum):
    """Who told us about a peer."""

    AGENT = "agent"  # healthagent's own /peer
    PATRONI = "patroni"  # a plain Patroni node's /patroni
    POSTGRES = "postgres"  # its PostgreSQL itself, asked while its agent is silent


@dataclass(frozen=True, slots=True)
class Candidate:
    """One side of a conflict: a node at a timeline, since a node may come back on another."""

    name: str
    timeline: int

    def __str__(self) -> str:
        return f"{self.name} on timeline {self.timeline}"


@dataclass(frozen=True, slots=True)
class Served:
    """The last moment at which a node answered 200 on /primary."""

    system_identifier: int | None
    timeline: int
    at: Instant


@dataclass(frozen=True, slots=True)
class Sight:
    """What a peer says that it sees of another member: for people, never for a decision."""

    name: str
    heard: bool
    role: Role | None
    timeline: int | None
    serving: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """What a peer says of itself, its ages turned into instants of our clock.

    The speaker composed it between `asked_at` and `received_at`. Whatever permits is
    counted from `asked_at`, whatever still forbids from `received_at`.
    """

    asked_at: Instant
    received_at: Instant
    source: Source
    cluster: str
    name: str
    incarnation: str  # uuid of that agent's start
    started_at: Instant  # not before that agent's start
    snapshot: Snapshot | None  # None: it has no fresh one, `reason` says why
    reason: Reason | str  # its own verdict on /primary; a newer agent may know words that we do not
    serving: bool
    stopped_serving_at: Instant | None = None  # not before its last 200; None: none in this incarnation
    served: Served | None = None
    yields_to: Candidate | None = None
    high_water: tuple[tuple[int, int], ...] = ()  # (system identifier, timeline)
    members_hash: str | None = None
    witness: bool = False
    version: str | None = None
    address: str | None = None  # host:port of its PostgreSQL as other nodes reach it
    sees: tuple[Sight, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    detail: str = ""
    replica_ok: bool | None = None
    replica_reason: str = ""

    @property
    def role(self) -> Role | None:
        return self.snapshot.role if self.snapshot else None

    @property
    def timeline(self) -> int | None:
        return self.snapshot.timeline if self.snapshot else None


class Alarm(StrEnum):
    """Why what a configured peer says is ignored."""

    WRONG_NAME = "wrong_name"
    FOREIGN_CLUSTER = "foreign_cluster"
    SELF = "self"
    DUPLICATE = "duplicate"
    MISUNDERSTOOD = "misunderstood"  # an answer, but none that we can read


@dataclass(frozen=True, slots=True)
class Call:
    """A question to a peer, or a round of them, that was answered or ran out of time."""

    begun_at: Instant
    ended_at: Instant


@dataclass(frozen=True, slots=True)
class Peer:
    """A member other than this one: all that is known of it, however old."""

    name: str
    witness: bool = False
    discovered: bool = False
    statement: Statement | None = None  # the last accepted one
    silent_since: Instant | None = None  # when the first unanswered question was asked
    heard_serving: Served | None = None  # the last time that it said so
    served_until: Instant | None = None  # it may have served until then, and is not known as a replica since
    alarm: Alarm | None = None
    alarm_detail: str = ""
    asked_directly: Snapshot | None = None  # by its DSN, while its agent is silent
    last_call: Call | None = None

    @property
    def label(self) -> str:
        """Its own name where it was found by DNS and only an address is configured."""
        return self.statement.name if self.discovered and self.statement else self.name

    @property
    def counts(self) -> bool:
        """Whether this entry is a member of its own."""
        return self.alarm not in (Alarm.SELF, Alarm.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Term:
    """An unbroken stretch of evidence that this node is primary on one timeline."""

    system_identifier: int | None
    timeline: int
    since: Instant  # when this agent learned of it
    seen_at: Instant  # asked_at of the last snapshot that showed it
    newly: bool  # it must pass the start gate before it serves
    broken: bool = False  # the evidence was lost; the next snapshot begins another term


@dataclass(frozen=True, slots=True)
class Signals:
    """Three witnesses of who the rightful primary is; each names one candidate or abstains."""

    timeline: Candidate | None = None
    followers: Candidate | None = None
    incumbent: Candidate | None = None

    def votes(self, candidate: Candidate) -> int:
        return [self.timeline, self.followers, self.incumbent].count(candidate)


@dataclass(frozen=True, slots=True)
class Rival:
    """The other side of a conflict, and when it was last known to be a primary."""

    candidate: Candidate
    primary_at: Instant


@dataclass(frozen=True, slots=True)
class Conflict:
    """Several primaries of one cluster: who, what the signals said, and who won."""

    rivals: tuple[Rival, ...]
    signals: Signals
    winner: Candidate | None  # None: nobody is the clear winner


@dataclass(frozen=True, slots=True)
class Maintenance:
    """An operator took this node out of service."""

    until: Instant | None  # None: until somebody ends it


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision must know of those before it. Replaced whole, never edited."""

    started_at: Instant
    high_water: Mapping[int, int] = field(default_factory=dict)  # system identifier -> served timeline
    saved_high_water: Mapping[int, int] = field(default_factory=dict)  # the part that survives a crash
    forgiven: tuple[int, int] | None = None  # a high-water mark that an operator cleared for this node
    term: Term | None = None
    served: Served | None = None
    serving: bool = False  # the last verdict on /primary that anybody asked for
    conflict: Conflict | None = None
    yields_to: Candidate | None = None
    yielded_until: Instant = float("-inf")  # since then this agent yields to nobody
    alone_at: Instant = float("-inf")  # the last moment at which this new primary heard no majority
    maintenance: Maintenance | None = None
    # replica: the last moment at which each was as it should be, None: not since the start
    streamed_at: Instant | None = None
    replayed_lsn: Lsn | None = None
    followed_at: Instant | None = None
    on_timeline_at: Instant | None = None
    lagged_at: Instant | None = None  # the last moment above the configured limit


@dataclass(frozen=True, slots=True)
class View:
    """Every input of one decision."""

    now: Instant
    name: str
    local: Local
    memory: Memory
    peers: tuple[Peer, ...] = ()
    stopping: bool = False
    addresses: Mapping[str, frozenset[tuple[str, int]]] = field(
        default_factory=dict
    )  # of members' PostgreSQL


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator chose. Durations in seconds; names and defaults as in the configuration."""

    cluster: str = "main"
    witness: bool = False
    max_age: float = 2.0
    poll_interval: float = 0.5
    system_identifier: int | None = None
    demote_all: bool = False
    demote_isolated: bool = False
    isolation_after: float = 3.0
    start_alone_after: float = 10.0
    takeover_after: float = 10.0
    drain: float = 3.0
    round_max_age: float = 2.5
    peer_max_age: float = 2.0
    peer_interval: float = 0.5
    peer_timeout: float = 1.0
    snapshot_max_age: float = 3.0  # of a peer's snapshot, transit included
    expected_members: int | None = None  # with discovery: this one included
    durable: bool = True  # False: no state_dir, restarts forget
    lag_limit: LagLimit = LagLimit()
    grace: float = 10.0
    hold: float = 5.0
    require_primary: bool = False
    no_load_balance: bool = False

    @property
    def silence(self) -> float:
        """How long a serving peer that fell silent may still serve its side, drain included."""
        if self.demote_isolated:
            return self.isolation_after + self.peer_interval + self.peer_timeout + self.drain
        return self.drain
