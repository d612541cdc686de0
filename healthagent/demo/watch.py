"""Every agent's answer on /primary, a hundred times a second: what changed, and whether two ever said 200.

The agents promise something about every moment, so the demo looks at as many as it can, in a
thread of its own, while the steps run.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from healthagent.clock import boottime
from healthagent.core.model import Instant
from healthagent.demo.agent import Answer

INTERVAL = 0.01  # seconds from the end of one look at all agents to the next
POLL = 0.01
WITHIN = 30.0  # seconds to wait for what must happen; a busy machine is slow


@dataclass(frozen=True)
class Change:
    """From this moment on an agent gave another code or reason than before."""

    at: Instant
    name: str
    answer: Answer


class Watch:
    """Asks one question of each agent, by name, again and again while it is entered."""

    def __init__(self, questions: Mapping[str, Callable[[], Answer]]) -> None:
        self.changes: list[Change] = []
        self.latest: dict[str, Answer] = {}
        self.looks = 0
        self.double: list[str] = []  # moments at which more than one agent said 200
        self.permitted_at: dict[str, Instant] = {}  # when each last said 200
        self._questions = questions
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watch")

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self._look_until_stopped)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.shutdown()
        if kind is None:
            self._running.result()

    def _look_until_stopped(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.look()

    def look(self) -> None:
        """Ask every agent once."""
        for name, question in self._questions.items():
            self._note(name, question(), boottime())
        permitted = [name for name, answer in self.latest.items() if answer.code == 200]
        if len(permitted) > 1:
            self.double.append(f"{' and '.join(permitted)} at {boottime():.3f}")
        self.looks += 1

    def _note(self, name: str, answer: Answer, now: Instant) -> None:
        before = self.latest.get(name)
        self.latest[name] = answer
        if answer.code == 200:
            self.permitted_at[name] = now
        if before is None or (before.code, before.reason) != (answer.code, answer.reason):
            self.changes.append(Change(now, name, answer))

    def since(self, at: Instant, name: str) -> list[Change]:
        """The changes of one agent from then on."""
        return [change for change in self.changes if change.at >= at and change.name == name]

    def wait(self, name: str, condition: Callable[[Answer], bool]) -> bool:
        """Wait until an agent's answer is such; False after a while."""
        deadline = time.monotonic() + WITHIN
        while not (name in self.latest and condition(self.latest[name])):
            if self._running.done():
                self._running.result()  # a bug in the thread ends us here
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        return True
