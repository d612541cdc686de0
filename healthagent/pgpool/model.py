"""The words between the agents, pgpool and the bridge."""

from dataclasses import dataclass
from enum import StrEnum

from healthagent.core.model import Role


class Says(StrEnum):
    """What a node's agent says, in the words that matter to pgpool."""

    PRIMARY = "primary"  # /primary is 200
    REPLICA = "replica"  # /replica is 200
    UNFIT_REPLICA = "unfit_replica"  # in recovery, /replica is 503: lagging, not streaming, ...
    REFUSED = "refused"  # clients must be kept off: a primary that lost or may have lost, or maintenance
    DOWN = "down"  # the agent answers and says that PostgreSQL is down
    UNDECIDED = "undecided"  # the agent answers, but nothing that pgpool should act upon
    UNKNOWN = "unknown"  # no answer, or not a believable one


class Status(StrEnum):
    """What pgpool does with a backend, as pgpool spells it."""

    UNUSED = "unused"
    WAITING = "waiting"  # attached, no session has used it yet
    UP = "up"
    DOWN = "down"
    QUARANTINE = "quarantine"  # the watchdog's own business

    @property
    def attached(self) -> bool:
        return self in (Status.WAITING, Status.UP)


@dataclass(frozen=True, slots=True)
class Told:
    """What an agent told the bridge, or why it told nothing."""

    says: Says = Says.UNKNOWN
    role: Role | None = None  # PostgreSQL's own role, whatever the verdict
    why: str = "no agent is configured for it"


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend in pgpool's own mind: shared memory, so that asking never waits for PostgreSQL."""

    index: int
    host: str
    port: int
    status: Status
    is_primary: bool  # pgpool sends writes here


@dataclass(frozen=True, slots=True)
class LiveInfo:
    """What PostgreSQL of a backend told pgpool just now."""

    can_log_in: bool | None
    role: Role | None
    delay: float  # replication delay: bytes, or seconds when pgpool was told to measure time


class Kind(StrEnum):
    """What the bridge may ask of pgpool."""

    DETACH = "detach"
    ATTACH = "attach"
    PROMOTE = "promote"  # only moves pgpool's primary; PostgreSQL is not promoted


@dataclass(frozen=True, slots=True)
class Action:
    """One request to pgpool, and the sentence that explains it."""

    kind: Kind
    index: int
    why: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One backend in one poll: what its agent says, what pgpool thinks, and what PostgreSQL told pgpool."""

    name: str
    told: Told
    backend: Backend
    live: LiveInfo | None = None

    @property
    def index(self) -> int:
        return self.backend.index

    @property
    def contradicted(self) -> bool:
        """Agent and pgpool see different roles: it changed just now, or the backend is another node's."""
        live_role = self.live.role if self.live else None
        return None not in (self.told.role, live_role) and self.told.role is not live_role
