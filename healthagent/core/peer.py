"""What is known of another member: what it said, when, and what that leaves open."""

from dataclasses import dataclass
from enum import StrEnum

from healthagent.core.model import Instant, Role, Snapshot, Tag


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
    forced: bool = False  # by an operator's word, not by the rules


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
    reason: str  # its own verdict on /primary, a Reason; a newer agent may know words that we do not
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
    tags: tuple[tuple[str, Tag], ...] = ()
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
    timeline: int | None = None  # the last that it told: for people
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
