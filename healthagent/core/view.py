"""Everything that one decision looks at: the evidence, what must be remembered, and the policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from healthagent.core.model import NO_LIMIT, Instant, LagLimit, Local, Lsn
from healthagent.core.peer import Candidate, Peer, Served


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
    who: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's verdict on /primary, in place of the rules'."""

    on: bool
    since: Instant
    until: Instant
    timeline: int | None  # on: that PostgreSQL was on when it was given
    who: str = ""
    why: str = ""

    @property
    def said(self) -> str:
        """Who, and why, as a sentence has it."""
        return (self.who or "an operator") + (f" ({self.why})" if self.why else "")


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
    override: Override | None = None
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
    lag_limit: LagLimit = NO_LIMIT
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
