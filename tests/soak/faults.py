"""Faults at random, of real servers and real agents: two streams, each one fault after another."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGCONT, SIGSTOP

from healthagent.clock import boottime
from healthagent.demo.postgres import Node
from tests.bed.agent import Agent
from tests.soak.disturbances import Disturbance, Truth

LONGEST = 4.0  # seconds of one fault: the primary is then not yet newly primary (takeover_after)
PAUSES = (0.5, 3.0)  # seconds between two faults of a stream
OF_PRIMARY = 0.25  # share of PostgreSQL faults that hit the primary
TERMINATE = (
    """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'healthagent'"""
)


class Faults:
    """Runs two threads of faults until `end`; what went wrong in them is raised there."""

    def __init__(self, nodes: list[Node], agents: list[Agent], truth: Truth, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._nodes, self._agents, self._truth = nodes, agents, truth
        self._ending = threading.Event()
        self._errors: list[BaseException] = []
        streams = (self._break_postgres, self._break_agents)
        self._threads = [
            threading.Thread(target=self._go_on, args=(stream, random.Random(f"{seed} {stream.__name__}")))
            for stream in streams
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let the present faults end and be mended; raises what a fault could not do."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _go_on(self, stream: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            while not self._ending.wait(chance.uniform(*PAUSES)):
                stream(chance)
        except BaseException as error:  # handed to whoever calls end()
            self._errors.append(error)

    def _break_postgres(self, chance: random.Random) -> None:
        primary, *replicas = self._nodes
        node = primary if chance.random() < OF_PRIMARY else chance.choice(replicas)
        fault = chance.choice(
            [self._freeze, self._freeze_postmaster, self._kill9, self._restart, self._terminate]
        )
        self.done[f"PostgreSQL: {fault.__name__[1:]}"] += 1
        fault(node, chance.uniform(0.2, LONGEST))
        if node is primary:
            self._ending.wait(chance.uniform(15, 25))

    def _freeze(self, node: Node, seconds: float) -> None:
        with self._disturbed(node, outage=True):
            node.freeze()
            self._ending.wait(seconds)
            node.thaw()

    def _freeze_postmaster(self, node: Node, seconds: float) -> None:
        with self._disturbed(node):
            node.freeze_postmaster()
            self._ending.wait(seconds)
            node.thaw()

    def _kill9(self, node: Node, seconds: float) -> None:
        with self._disturbed(node):
            node.kill9()
            with self._disturbed(node, outage=True):
                self._ending.wait(seconds)
            node.start()

    def _restart(self, node: Node, seconds: float) -> None:
        with self._disturbed(node):
            node.restart("fast" if seconds < LONGEST / 2 else "immediate")

    def _terminate(self, node: Node, _seconds: float) -> None:
        with self._disturbed(node):
            node.psql(TERMINATE)

    @contextmanager
    def _disturbed(self, node: Node, outage: bool = False) -> Iterator[None]:
        disturbance = Disturbance(node.name, boottime(), outage)
        self._truth.of_postgres.append(disturbance)
        yield
        disturbance.ended = boottime()

    def _break_agents(self, chance: random.Random) -> None:
        """The primary's agent is only told to reload; the last is killed too: its memory is not compared."""
        first, *others = self._agents
        what, seconds = chance.random(), chance.uniform(0.2, LONGEST)
        if what < 0.2:
            self.done["agent: reload"] += 1
            first.reload()
            return
        agent = others[-1] if what < 0.5 else chance.choice(others)
        disturbance = Disturbance(agent.name, boottime(), outage=False)
        self._truth.of_agents.append(disturbance)
        if what < 0.5:
            self.done["agent: kill"] += 1
            agent.kill()
            self._ending.wait(seconds)
            agent.start()
        else:
            self.done["agent: freeze"] += 1
            agent.signal(SIGSTOP)
            self._ending.wait(seconds)
            agent.signal(SIGCONT)
        disturbance.ended = boottime()
