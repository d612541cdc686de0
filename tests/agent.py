"""One agent on virtual time: what the daemon, the client, the listener and the keeper do, as events."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from healthagent.board import SAVE_SERVED_EVERY, Board, Identity
from healthagent.core.memory import raise_high_water
from healthagent.core.model import Failure, Instant, Reason
from healthagent.core.peer import Peer, Served
from healthagent.core.view import Memory, Policy
from healthagent.peers.client import SOONEST_AGAIN
from healthagent.peers.exchange import Exchange, Overtaken
from healthagent.peers.patroni import statement_from
from healthagent.statefile import Stored, recall, stored_of
from healthagent.wire import Message, Misunderstood, decode, encode, statement_of
from tests.builders import PORT, address, addresses

if TYPE_CHECKING:
    from tests.world import World

SECRET = b"a secret of at least this many bytes"
TICK = 0.1  # seconds between two looks of the daemon at its verdicts
Dialect = Callable[[bytes], bytes]  # how an agent of another version spells its messages


@dataclass
class Question:
    """A call to a peer on its way."""

    entry: str
    asked_at: Instant
    over: bool = False


@dataclass
class Disk:
    """A state_dir: what is in it, and whether it takes more."""

    content: bytes | None = None
    full: bool = False
    takes: float = 0.01  # seconds for a write with its fsync
    note: object = None  # what the world noted beside the content

    def read(self) -> Stored | None:
        return None if self.content is None else msgspec.json.decode(self.content, type=Stored)


@dataclass
class Settings:
    """What distinguishes one agent's configuration from another's."""

    cluster: str = "main"
    entries: dict[str, str] = field(default_factory=dict)  # entry -> machine that it leads to
    by_dsn: frozenset[str] = frozenset()
    dialect: Dialect | None = None  # None: ours


class Agent:
    """An agent process: started, killed, frozen; between that it does what the real one does."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.settings = Settings()
        self.disk = Disk()
        self.running = False
        self.frozen = False
        self.ticks = True
        self.starts = 0
        self.speaks_patroni = False  # no agent of ours at all: a plain Patroni node
        self._waiting: list[Callable[[], None]] = []  # events of a frozen process
        self._saving = False
        self._kept_last: object = None
        self._shown: object = None
        self._asking: dict[str, Question] = {}
        self._planned: dict[str, int] = {}  # entry -> the latest plan to ask it; earlier ones are void

    @property
    def now(self) -> Instant:
        """This machine's clock."""
        return self.world.clocks[self.name].at(self.world.now)

    @property
    def answers(self) -> bool:
        return self.running and not self.frozen and not self.speaks_patroni

    # The process.

    def start(self) -> None:
        self.starts += 1
        self.running, self.frozen, self._saving, self._shown = True, False, False, None
        self._waiting, self._asking = [], {}
        if self.speaks_patroni:
            return
        policy: Policy = self.world.policy
        witness = self.name not in self.world.postgres
        incarnation = f"{self.name}/{self.starts}"
        stored = self.disk.read() if policy.durable else None
        self._kept_last = None
        self.board = Board(
            Identity(self.name, self.settings.cluster, incarnation, f"{address(self.name)}:{PORT}"),
            replace(policy, witness=witness),
            recall(stored, "this boot", self.now),
            [
                Peer(entry, witness=to not in self.world.postgres)
                for entry, to in self.settings.entries.items()
            ],
        )
        self.board.addresses = addresses(*self.world.postgres)
        self.exchange = Exchange(SECRET, incarnation) if self.world.signed else None
        if not witness:
            self._poll()
        for entry in self.settings.entries:
            self._ask(entry)
        if self.ticks:
            self._tick()

    def kill(self) -> None:
        self.running = False

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        """Everything that came due meanwhile happens now."""
        self.frozen = False
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event()

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        """Do something so many seconds of this machine's clock from now, if this process lives then."""
        self.world.later(seconds / self.world.clocks[self.name].rate, self.mine(event))

    def mine(self, event: Callable[[], None]) -> Callable[[], None]:
        """The event as it happens to this process: not after its death, and not while it is frozen."""
        start = self.starts

        def happen() -> None:
            if not self.running or self.starts != start:
                return
            if self.frozen:
                self._waiting.append(happen)
                return
            event()

        return happen

    # Its PostgreSQL.

    def _poll(self) -> None:
        self.probe()
        self.later(self.world.policy.poll_interval, self._poll)

    def probe(self) -> None:
        """One poll; also at once when a connection is lost."""
        postgres, asked_at = self.world.postgres[self.name], self.now
        if postgres.running and postgres.hangs:
            # one second of waiting, in which only the board's age of evidence grows
            self.later(
                1.0, lambda: self._fail(Reason.POSTGRES_STALE, "no answer within 1 s", conclusive=False)
            )
        elif postgres.running and postgres.starting:
            self._fail(Reason.POSTGRES_STARTING, "the database system is starting up", conclusive=True)
        elif postgres.running and postgres.locked:
            self._fail(Reason.AUTH_FAILED, "PostgreSQL refuses this agent's login", conclusive=True)
        elif postgres.running:
            snapshot = postgres.describe(asked_at, self.world.source_of(self.name))
            self.board.observe(snapshot, self.now)
            self.look()
        else:
            self._fail(Reason.POSTGRES_DOWN, "connection refused", conclusive=True)

    def _fail(self, reason: Reason, detail: str, *, conclusive: bool) -> None:
        self.board.observe_failure(Failure(reason, detail, self.now, conclusive), self.now)
        self.look()

    # Its verdict, as the daemon looks at it.

    def _tick(self) -> None:
        self.look()
        self.later(TICK, self._tick)

    def look(self) -> None:
        """Tell the peers at once when the verdict has changed, and keep what must be kept."""
        verdict = self.board.primary(self.now)
        memory = self.board.memory
        shown = (verdict.ok, verdict.reason, memory.term is None, memory.yields_to)
        if shown != self._shown:
            self._shown = shown
            for entry in self.settings.entries:
                if entry not in self._asking:
                    self._ask_after(SOONEST_AGAIN, entry)
        if self.world.policy.durable and not self._saving and not self.disk.full:
            self._keep(verdict.reason is Reason.STATE_UNSAVED)
        self.world.looked(self, verdict)

    # Its peers.

    def _ask_after(self, seconds: float, entry: str) -> None:
        plan = self._planned[entry] = self._planned.get(entry, 0) + 1
        self.later(seconds, lambda: self._ask(entry) if self._planned[entry] == plan else None)

    def _ask(self, entry: str) -> None:
        """One call to a peer, unless one is on its way; the next follows an interval after it began."""
        if entry in self._asking:
            return
        question = self._asking[entry] = Question(entry, self.now)
        target = self.world.agents[self.settings.entries[entry]]
        if self.exchange is not None:
            said, signature = self.exchange.send(self.board.describe(self.now), entry, self.now)
            body, signature = self._spelled(said, signature)
        else:
            body, signature = b"", ""
        note = self.world.note(self) if body else None
        if (self.name, target.name) not in self.world.network.blocked:
            self.world.carry(
                self.name, target.name, lambda: self._put(target, question, body, signature, note)
            )
        self.later(self.world.policy.peer_timeout, lambda: self._time_out(question))

    def _put(self, target: "Agent", question: Question, body: bytes, signature: str, note: object) -> None:
        """The question has reached the other machine."""
        if not target.running:
            self.world.carry(target.name, self.name, self.mine(lambda: self._time_out(question)))  # refused
        elif target.speaks_patroni:
            said = patroni_json(self.world, target.name)
            self.world.carry(target.name, self.name, self.mine(lambda: self._take_patroni(question, said)))
        else:
            target.mine(lambda: target._answer(self, question, body, signature, note))()

    def _answer(self, asker: "Agent", question: Question, body: bytes, signature: str, note: object) -> None:
        """What the listener does: hear whoever signs, tell whoever asks."""
        if self.exchange is None:
            said, signed = self._spelled(encode(self.board.describe(self.now)), "")
        else:
            try:
                message, composed_after = self.exchange.receive(body, signature)
            except Overtaken as error:
                message, composed_after = error.message, None
            except Misunderstood:
                return  # forged or replayed: refused, and nobody waits for the answer
            if composed_after is not None and message.name in self.board.peers:
                self._hear(message.name, message, composed_after, note)
                self.look()
            answer, signed = self.exchange.send(
                self.board.describe(self.now), message.name, self.now, answering=message
            )
            said, signed = self._spelled(answer, signed)
        note = self.world.note(self)
        self.world.carry(self.name, asker.name, asker.mine(lambda: asker._take(question, said, signed, note)))

    def _take(self, question: Question, said: bytes, signature: str, note: object) -> None:
        """An answer has come, perhaps too late."""
        if question.over:
            return
        try:
            if self.exchange is None:
                message = decode(said)
            else:
                message, composed_after = self.exchange.receive(said, signature)
                if composed_after is None or composed_after < question.asked_at:
                    raise Misunderstood("the answer belongs to another question")  # noqa: TRY301  # as the client
        except Overtaken:
            pass
        except Misunderstood as error:
            self.board.miss(question.entry, question.asked_at, self.now)
            self.board.misunderstand(question.entry, str(error), self.now)
        else:
            self._hear(question.entry, message, question.asked_at, note)
        self._finish(question)

    def _spelled(self, body: bytes, signature: str) -> tuple[bytes, str]:
        """A message as this agent's version spells it."""
        if self.settings.dialect is None:
            return body, signature
        said = self.settings.dialect(body)
        return said, self.exchange._sign(said) if self.exchange else ""

    def _hear(self, entry: str, message: Message, asked_at: Instant, note: object) -> None:
        statement = statement_of(message, asked_at, self.now)
        self.board.hear(entry, statement, self.now)
        if self.board.peers[entry].statement is statement:
            self.world.read(self, note)

    def _take_patroni(self, question: Question, said: bytes) -> None:
        if not question.over:
            self.board.hear(
                question.entry, statement_from(said, question.entry, question.asked_at, self.now), self.now
            )
            self._finish(question)

    def _time_out(self, question: Question) -> None:
        if question.over:
            return
        self.board.miss(question.entry, question.asked_at, self.now)
        target = self.settings.entries[question.entry]
        if question.entry in self.settings.by_dsn and self.world.network.reaches(self.name, target):
            postgres = self.world.postgres[target]
            if postgres.answers:
                snapshot = postgres.describe(self.now, self.world.source_of(target))
                self.board.ask_directly(question.entry, snapshot, self.now)
        self._finish(question)

    def _finish(self, question: Question) -> None:
        question.over = True
        self._asking.pop(question.entry, None)
        self.board.end_call(question.entry, question.asked_at, self.now)
        again = question.asked_at + self.world.policy.peer_interval - self.now
        self._ask_after(max(again, SOONEST_AGAIN), question.entry)
        self.look()

    # Its state file, as the keeper keeps it.

    def _keep(self, waits: bool) -> None:
        """Save what differs from what was saved; `waits`: the first 200 of a timeline waits for it."""
        memory = self.board.memory
        kept = (
            memory.high_water,
            memory.served and (memory.served.timeline, memory.served.at // SAVE_SERVED_EVERY),
            memory.conflict and (memory.conflict.signals, memory.conflict.winner),
            memory.yields_to,
            memory.forgiven,
            memory.maintenance,
            memory.override,
        )
        if kept == self._kept_last and not waits:
            return
        if waits and memory.term is not None:
            service = Served(memory.term.system_identifier, memory.term.timeline, self.now)
            memory = raise_high_water(memory, service, saved=False)
        wanted = stored_of(memory, self.settings.cluster, "this boot", self.now, ())
        self._saving, self._kept_last = True, kept
        note = self.world.note(self)
        self.later(self.disk.takes, lambda: self._kept(memory, wanted, note))

    def _kept(self, memory: Memory, wanted: Stored, note: object) -> None:
        self._saving = False
        if self.disk.full:
            self._kept_last = None
            return
        self.disk.content, self.disk.note = msgspec.json.encode(wanted), note
        self.board.saved(memory, self.now)
        self.look()


def patroni_json(world: "World", name: str) -> bytes:
    """What a plain Patroni node says on /patroni."""
    postgres = world.postgres[name]
    return msgspec.json.encode(
        {
            "state": "running" if postgres.answers else "stopped",
            "role": postgres.role,
            "timeline": postgres.timeline,
            "database_system_identifier": str(postgres.system_identifier),
            "patroni": {"name": name, "scope": "batman", "version": "4.0.0"},
        }
    )
