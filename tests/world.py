"""A cluster on virtual time, in one process: real boards, real messages, no sockets and no sleep.

What the daemon does with timers and sockets happens here as events: each agent polls its
PostgreSQL, asks its peers under a deadline, tells them when its verdict changes and keeps its
state file. Every machine has a clock of its own, which may run fast or slow; agents see only that.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from healthagent.core.model import Instant, Receiver, Role, Snapshot, Verdict
from healthagent.core.view import Policy
from tests.agent import Agent
from tests.builders import PORT, SYSTEM, address

Second = float


@dataclass
class Clock:
    """A machine's CLOCK_BOOTTIME: it began at some value and runs almost at the true rate."""

    began_at: Instant = 0.0
    rate: float = 1.0

    def at(self, true: Second) -> Instant:
        return self.began_at + true * self.rate


@dataclass
class Postgres:
    """What a PostgreSQL would say of itself, and to whom it is attached."""

    name: str
    role: Role = Role.REPLICA
    timeline: int = 1
    running: bool = True
    hangs: bool = False
    starting: bool = False
    locked: bool = False  # its agent's login is refused
    read_only: bool = False
    follows: str | None = None
    system_identifier: int = SYSTEM
    written: int = 1000  # bytes: flushed on a primary, received on a replica
    replayed: int = 1000
    replay_age: float | None = None

    @property
    def answers(self) -> bool:
        return self.running and not (self.hangs or self.starting or self.locked)

    def describe(self, asked_at: Instant, source: "Postgres | None") -> Snapshot:
        """One poll; `source` is the server that it follows."""
        if self.role is Role.PRIMARY:
            return Snapshot(
                asked_at,
                Role.PRIMARY,
                self.system_identifier,
                self.timeline,
                read_only=self.read_only,
                insert_lsn=self.written,
                flush_lsn=self.written,
            )
        receiver = None
        if source is not None and source.running and source.timeline >= self.timeline:
            self.timeline = source.timeline
            receiver = Receiver(
                "streaming",
                address(source.name),
                PORT,
                timeline=self.timeline,
                latest_end_lsn=self.written,
            )
        return Snapshot(
            asked_at,
            Role.REPLICA,
            self.system_identifier,
            self.timeline,
            received_lsn=self.written,
            replayed_lsn=self.replayed,
            replay_age_seconds=self.replay_age,
            receiver=receiver,
        )


@dataclass
class Network:
    """Who cannot reach whom, and how long what arrives takes. Directed: (from, to)."""

    cut: set[tuple[str, str]] = field(default_factory=set)  # nothing arrives
    blocked: set[tuple[str, str]] = field(default_factory=set)  # no connection can be opened; answers pass
    delay: Callable[[str, str], Second | None] = lambda _source, _target: 0.002  # None: lost on the way
    again: Callable[[], Second | None] = lambda: None  # after how long the same message arrives once more

    def sever(self, one: str, other: str, *, one_way: bool = False) -> None:
        self.cut.add((one, other))
        if not one_way:
            self.cut.add((other, one))

    def heal(self) -> None:
        self.cut.clear()
        self.blocked.clear()

    def reaches(self, source: str, target: str) -> bool:
        return source == target or (source, target) not in self.cut


class World:
    """Machines, their agents and PostgreSQLs, the network between them, and one queue of events."""

    def __init__(self, policy: Policy, *, signed: bool = False) -> None:
        self.now: Second = 0.0
        self.policy = policy
        self.signed = signed
        self.network = Network()
        self.clocks: dict[str, Clock] = {}
        self.postgres: dict[str, Postgres] = {}
        self.agents: dict[str, Agent] = {}
        self.observers: list[Callable[[Agent, Verdict], None]] = []
        self._queue: list[tuple[Second, int, Callable[[], None]]] = []
        self._order = itertools.count()

    # Machines.

    def add(self, name: str, clock: Clock | None = None, *, witness: bool = False) -> None:
        """A machine with its PostgreSQL, unless it is a witness, and an agent that is not started yet."""
        self.clocks[name] = clock or Clock()
        if not witness:
            self.postgres[name] = Postgres(name)
        self.agents[name] = Agent(self, name)

    def source_of(self, name: str) -> Postgres | None:
        """The server that a replica follows."""
        follows = self.postgres[name].follows
        return None if follows is None else self.postgres.get(follows)

    def promote(self, name: str, timeline: int | None = None) -> None:
        """pg_promote: the next timeline that this server knows nothing of."""
        postgres = self.postgres[name]
        postgres.role, postgres.follows = Role.PRIMARY, None
        postgres.timeline = timeline or postgres.timeline + 1

    def follow(self, name: str, source: str) -> None:
        """Make a server a replica of another: pg_rewind and a restart, or a changed primary_conninfo."""
        postgres = self.postgres[name]
        postgres.role, postgres.follows = Role.REPLICA, source
        postgres.timeline = min(postgres.timeline, self.postgres[source].timeline)

    # Time.

    def later(self, seconds: Second, event: Callable[[], None]) -> None:
        """Do something so many true seconds from now."""
        heapq.heappush(self._queue, (self.now + seconds, next(self._order), event))

    def run(self, seconds: Second) -> None:
        """Let so many true seconds pass."""
        until = self.now + seconds
        for at, event in self._due(until):
            self.now = at
            event()
        self.now = until

    def _due(self, until: Second) -> Iterator[tuple[Second, Callable[[], None]]]:
        while self._queue and self._queue[0][0] <= until:
            at, _, event = heapq.heappop(self._queue)
            yield at, event

    # For those who watch.

    def looked(self, agent: Agent, verdict: Verdict) -> None:
        """An agent has taken in something, or some time has passed: this is what it answers now."""
        for observe in self.observers:
            observe(agent, verdict)

    def note(self, agent: Agent) -> object:
        """What a watcher wants to travel beside a message, or to lie beside a state file."""

    def read(self, agent: Agent, note: object) -> None:
        """An agent has believed a message."""

    # Messages.

    def carry(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        """Take a message to another machine, or lose it."""
        delay = self.network.delay(source, target)
        if delay is not None and self.network.reaches(source, target):
            self.later(delay, lambda: self._arrive(source, target, arrive))
            again = self.network.again()
            if again is not None:
                self.later(delay + again, lambda: self._arrive(source, target, arrive))

    def _arrive(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        if self.network.reaches(source, target):  # a cut takes what is on the way
            arrive()
