"""Checks at a steady rate, each on a connection of its own as HAProxy has it, and each answer judged."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable

from healthagent.clock import boottime
from tests.bed.agent import Agent
from tests.soak.disturbances import MOMENT, Answer, Disturbance, Truth

AT_ONCE = 2000  # questions on their way; a frozen agent's pile up
PATIENCE = 15.0  # seconds
BATCH = 0.02  # seconds between two bursts of questions
PATHS = ("/primary", "/primary", "/primary", "/replica", "/liveness")
MOST_COMPLAINTS = 20


class Clients:
    """`await clients.run(rate)` until cancelled; then `complaints`, `answered` and `longest` tell."""

    def __init__(self, agents: Iterable[Agent], truth: Truth, seed: int) -> None:
        self.answered: Counter[tuple[str, str, int]] = Counter()  # (node, path, status)
        self.complaints: list[str] = []
        self.wrong = 0
        self.stalls = 0  # of this whole machine, as far as can be told
        self.longest = 0.0  # seconds that an agent left alone took
        self._agents = list(agents)
        self._truth = truth
        self._chance = random.Random(f"{seed} clients")
        self._asking: set[asyncio.Task[None]] = set()

    async def run(self, rate: float) -> None:
        """Ask `rate` times a second over all agents."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                due += BATCH
                for _ in range(round(rate * BATCH)):
                    if len(self._asking) < AT_ONCE:
                        self._ask_one()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if (late := loop.time() - due) > MOMENT:
                    self._note_stall(late)
                    due += late
        finally:
            if self._asking:
                await asyncio.wait(self._asking, timeout=PATIENCE)

    def _note_stall(self, seconds: float) -> None:
        """This process stood still, and so, it must be assumed, did the agents: nobody left them alone."""
        self.stalls += 1
        now = boottime()
        for agent in self._agents:
            self._truth.of_agents.append(Disturbance(agent.name, now - seconds - MOMENT, False, now))

    def _ask_one(self) -> None:
        agent = self._chance.choice(self._agents)
        task = asyncio.create_task(self._ask(agent, self._chance.choice(PATHS)))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, agent: Agent, path: str) -> None:
        before = boottime()
        try:
            async with asyncio.timeout(PATIENCE):
                status, reason = await asked(agent.host, agent.port, path)
        except (OSError, TimeoutError, ValueError):
            status, reason = 0, ""
        answer = Answer(agent.name, path, before, boottime(), status, reason)
        self.answered[answer.node, path, status] += 1
        if not any(one.node == answer.node and one.ended >= before for one in self._truth.of_agents):
            self.longest = max(self.longest, answer.after - before)
        fault = self._truth.fault(answer)
        if fault is not None:
            self.wrong += 1
            if len(self.complaints) < MOST_COMPLAINTS:
                self.complaints.append(f"{fault}: {answer}")


async def asked(host: str, port: int, path: str) -> tuple[int, str]:
    """Status and reason; OSError or ValueError when there is no whole answer."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head, _, _ = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    status_line, *headers = head.decode("latin-1").split("\r\n")
    reasons = [
        line.partition(": ")[2] for line in headers if line.lower().startswith("x-healthagent-reason:")
    ]
    return int(status_line.split()[1]) if status_line else 0, reasons[0] if reasons else ""
