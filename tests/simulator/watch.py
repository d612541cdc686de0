"""What must hold at every instant of every schedule, judged by one who sees all machines.

The watcher looks at an agent whenever it has taken something in, as a checker would ask it then,
and at all others whenever one of them begins to answer 200. It judges by what really happened
(when messages were composed, whom they reached, what was served), never by what an agent thinks.

Two agents are *apart* at an instant when a message between them is lost, refused, or late beyond
`timeout`, or when either of them is frozen, dead or starting. A *round* is interval + timeout.

P2  A and B both answer 200 only if they were apart within the last round; and not even then if
    they were never apart since the later of them became primary and one has read a message
    that the other composed since (an exchange).
P2' Nobody answers 200 while the newest message that it has read of another, composed within
    peer.max_age, says that the other serves.
P3  Nobody answers 200 on a timeline older than one that it had the chance to know of: one that it
    has served itself, or of which it has read a message whose sender knew in the same sense. What
    an agent knows survives its restart as far as its state file had been written since.
P7  Who answers 200, while no other PostgreSQL of the cluster has been primary for 20 s and its own
    agent and PostgreSQL are undisturbed for 5 s, goes on to do so, whatever the others suffer
    (isolation: demote and maintenance aside).
D   Nobody begins to answer 200 within `drain` after another's last 200, unless the two were apart
    since a moment before that or within the last round, or it has read since that the other's
    PostgreSQL is a replica.
L   The only primary, on the newest served timeline, calm for 30 s: answers 200.
"""

from dataclasses import dataclass, field

from healthagent.core.model import Role, Verdict
from tests.agent import Agent
from tests.world import World

LONG_AGO = float("-inf")
DRIFT = 0.011  # two clocks that each run up to 0.5 % off, and a little
AFTERWARDS = 1e-9  # seconds: what fails in the instant of an event fails after it
A_MOMENT = 0.3  # seconds for the events of one exchange on the machines themselves


class Violated(Exception):
    """An invariant does not hold; the text says which, when, and by whom."""


@dataclass(frozen=True)
class Note:
    """Travels beside a message: what its sender was when it composed it."""

    name: str
    composed_at: float
    knows: int  # the highest timeline that it had the chance to know as served
    serving: bool
    role: Role | None  # of its PostgreSQL, as it says


@dataclass
class Known:
    """What the watcher knows of one agent."""

    serving: bool = False
    served_at: float = LONG_AGO  # true time of its last 200
    knows: int = 0
    own: int = 0  # the highest timeline that it served itself
    primary_since: float = LONG_AGO
    term: object = None
    disturbed_at: float = LONG_AGO  # its agent or its PostgreSQL
    read: dict[str, Note] = field(default_factory=dict)
    read_replica: dict[str, float] = field(default_factory=dict)  # when that was last composed
    said: tuple[bool, str] = (False, "")
    in_maintenance: bool = False


class WatchedWorld(World):
    """A world that is watched: every look of an agent is judged."""

    def watch(self) -> None:
        """Begin, with all machines added."""
        self.known = {name: Known() for name in self.agents}
        self.apart_at: dict[frozenset[str], float] = {}
        self.transcript: list[str] = []
        self.primary_at = dict.fromkeys(self.postgres, LONG_AGO)  # when each was last truly a primary
        self.a_round = self.policy.peer_interval + self.policy.peer_timeout + A_MOMENT
        self.observers.append(self._look)

    # What really happens.

    def part(self, one: str, other: str, *, after: float = 0.0) -> None:
        """Something between two agents has failed just now."""
        self.apart_at[frozenset((one, other))] = self.now + after

    def apart(self, one: str, other: str) -> float:
        """The last instant at which the two were apart."""
        network = self.network
        for pair in ((one, other), (other, one)):
            if pair in network.cut or pair in network.blocked:
                return self.now
        if not (self.agents[one].answers and self.agents[other].answers):
            return self.now
        return self.apart_at.get(frozenset((one, other)), LONG_AGO)

    def disturb(self, name: str, *, agent: bool) -> None:
        """Something has happened to a node itself."""
        self.known[name].disturbed_at = self.now
        if agent:
            for other in self.agents:
                if other != name:
                    self.part(name, other)

    def note_primaries(self) -> None:
        """Called around every change of a role."""
        for name, postgres in self.postgres.items():
            if postgres.role is Role.PRIMARY:
                self.primary_at[name] = self.now

    def note(self, agent: Agent) -> Note:
        known, board = self.known[agent.name], agent.board
        return Note(agent.name, self.now, known.knows, board.memory.serving, board.role(agent.now))

    def read(self, agent: Agent, note: object) -> None:
        assert isinstance(note, Note)
        known = self.known[agent.name]
        known.knows = max(known.knows, note.knows)
        newest = known.read.get(note.name)
        if newest is None or newest.composed_at <= note.composed_at:
            known.read[note.name] = note
        if note.role is Role.REPLICA:
            known.read_replica[note.name] = max(note.composed_at, known.read_replica.get(note.name, LONG_AGO))

    def started(self, agent: Agent) -> None:
        """An agent starts with what its state file holds."""
        kept = agent.disk.note if agent.disk.content is not None and self.policy.durable else None
        before = self.known[agent.name]
        # what it served itself was in the state file before the first 200
        knows = max(kept.knows, before.own) if isinstance(kept, Note) else 0
        self.known[agent.name] = Known(
            knows=knows, own=before.own if knows else 0, served_at=before.served_at, disturbed_at=self.now
        )

    # What is judged.

    def _look(self, agent: Agent, verdict: Verdict) -> None:
        known = self.known[agent.name]
        self._follow_term(agent, known)
        began = verdict.ok and not known.serving
        lost = known.serving and not verdict.ok
        said = (verdict.ok, str(verdict.reason))
        if said != known.said:
            known.said = said
            code = 200 if verdict.ok else 503
            self.transcript.append(f"t={self.now:.2f} {agent.name} {code} {verdict.reason}: {verdict.detail}")
        known.serving = verdict.ok
        if verdict.ok:
            self._judge_service(agent, known, began)
            known.served_at = self.now
            if began:
                self._look_at_the_others(agent)
        elif lost:
            self._judge_loss(agent, known, verdict)

    def _follow_term(self, agent: Agent, known: Known) -> None:
        term = agent.board.memory.term
        identity = None if term is None else (term.timeline, term.since)
        if identity != known.term:
            known.term, known.primary_since = identity, self.now

    def _look_at_the_others(self, agent: Agent) -> None:
        for name, other in self.agents.items():
            if name != agent.name and other.answers and other.board.memory.term is not None:
                self._look(other, other.board.primary(other.now))

    def _judge_service(self, agent: Agent, known: Known, began: bool) -> None:
        term = agent.board.memory.term
        assert term is not None
        if agent.board.memory.yields_to is not None:
            raise Violated(f"{agent.name} answers 200 while it says that it yields")
        if term.timeline < known.knows:
            raise Violated(
                f"P3: {agent.name} answers 200 on {term.timeline}, and could know of {known.knows}"
            )
        known.knows = max(known.knows, term.timeline)
        known.own = max(known.own, term.timeline)
        for name, other in self.known.items():
            if name == agent.name:
                continue
            apart_at = self.apart(agent.name, name)
            note = known.read.get(name)
            if note and note.serving and self.now - note.composed_at < self.policy.peer_max_age * (1 - DRIFT):
                late = self.now - note.composed_at
                raise Violated(f"P2': {agent.name} answers 200 and read {late:.2f} s ago that {name} serves")
            if other.serving and self.agents[name].answers:
                self._judge_two(agent.name, name, apart_at)
            if began:
                self._judge_drain(agent.name, name, apart_at)

    def _judge_two(self, one: str, two: str, apart_at: float) -> None:
        other = self.agents[two]
        if not other.board.primary(other.now).ok:
            return  # it had served when it was last looked at, and time has passed
        if self.now - apart_at > self.a_round:
            raise Violated(f"P2: {one} and {two} both answer 200, {self.now - apart_at:.2f} s after they met")
        since = max(self.known[one].primary_since, self.known[two].primary_since)
        exchanged = any(
            (note := self.known[reader].read.get(speaker)) is not None and note.composed_at >= since
            for reader, speaker in ((one, two), (two, one))
        )
        if apart_at <= since and exchanged:
            raise Violated(
                f"P2: {one} and {two} both answer 200, and were never apart since both are primary"
            )

    def _judge_drain(self, one: str, other: str, apart_at: float) -> None:
        known = self.known[other]
        waited = self.now - known.served_at
        if waited >= self.policy.drain * (1 - DRIFT) - 0.01:
            return
        if apart_at >= known.served_at - A_MOMENT or self.now - apart_at <= self.a_round:
            return
        if self.known[one].read_replica.get(other, LONG_AGO) > known.served_at:
            return
        raise Violated(f"D: {one} answers 200 only {waited:.2f} s after the last 200 of {other}")

    def _judge_loss(self, agent: Agent, known: Known, verdict: Verdict) -> None:
        if self.policy.demote_isolated or known.in_maintenance or self.now - known.disturbed_at < 5.0:
            return
        others = max((at for name, at in self.primary_at.items() if name != agent.name), default=LONG_AGO)
        if self.now - others >= 20.0 and verdict.reason not in ("maintenance", "stopping"):
            raise Violated(f"P7: {agent.name} is undisturbed and alone, and answers {verdict.reason}")
