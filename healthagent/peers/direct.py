"""A peer's PostgreSQL asked directly, only while its agent is silent."""

import asyncio
from collections.abc import Callable, Mapping

from healthagent.board import Board
from healthagent.core.members import heard
from healthagent.core.model import Failure, Instant, Snapshot
from healthagent.core.peer import Alarm
from healthagent.peers.resolve import Names
from healthagent.postgres import Poller
from healthagent.postgres.session import ConnectArguments

LOOK_EVERY = 0.25  # seconds


class Directs:
    """All peers with a DSN: `await directs.run()`; the list may change while it runs."""

    def __init__(
        self, board: Board, clock: Callable[[], Instant], names: Names, *, interval: float, timeout: float
    ) -> None:
        self.board = board
        self._clock = clock
        self._names = names
        self._interval = interval
        self._timeout = timeout
        self._wanted: dict[str, ConnectArguments] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def change(self, *, interval: float, timeout: float) -> None:
        """Use other durations from now on."""
        if (interval, timeout) == (self._interval, self._timeout):
            return
        self._interval, self._timeout = interval, timeout
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._changed.set()

    def replace(self, wanted: Mapping[str, ConnectArguments]) -> None:
        """Ask these from now on, by entry; those that stay as they are are not disturbed."""
        for entry in [one for one in self._tasks if self._wanted.get(one) != wanted.get(one)]:
            self._tasks.pop(entry).cancel()
        self._wanted = dict(wanted)
        self._changed.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                for entry, arguments in self._wanted.items():
                    if entry not in self._tasks:
                        direct = Direct(
                            self.board,
                            entry,
                            arguments,
                            self._clock,
                            self._names,
                            interval=self._interval,
                            timeout=self._timeout,
                        )
                        self._tasks[entry] = tasks.create_task(direct.run(), name=f"direct {entry}")
                await self._changed.wait()


class Direct:
    """One peer with a DSN: `await direct.run()`. It is the sink of its own poller."""

    def __init__(
        self,
        board: Board,
        entry: str,
        arguments: ConnectArguments,
        clock: Callable[[], Instant],
        names: Names,
        *,
        interval: float,
        timeout: float,
    ) -> None:
        self.board = board
        self.entry = entry
        self._arguments = arguments
        self._clock = clock
        self._names = names
        self._interval = interval
        self._timeout = timeout

    async def run(self) -> None:
        while True:
            await self._until(silent=True)
            poller = Poller(
                self._arguments, self, self._clock, interval=self._interval, timeout=self._timeout
            )
            # in a group: a poller that raises is a bug, and must not end unnoticed
            async with asyncio.TaskGroup() as group:
                task = group.create_task(poller.run(), name=f"postgres of {self.entry}")
                await self._until(silent=False)
                task.cancel()

    async def _until(self, *, silent: bool) -> None:
        while True:
            if self._silent() is silent:
                return
            await asyncio.sleep(LOOK_EVERY)

    def _silent(self) -> bool:
        """Whether nothing can be heard of this peer; an entry that leads to another agent is not silent."""
        peer = self.board.peers.get(self.entry)
        if peer is None or peer.alarm not in (None, Alarm.MISUNDERSTOOD):
            return False
        return heard(peer, self._clock(), self.board.policy) is None

    # The poller tells us.

    def observe(self, snapshot: Snapshot) -> None:
        self.board.ask_directly(self.entry, self._names.with_upstream(snapshot), self._clock())

    def observe_failure(self, failure: Failure) -> None:
        """Nothing: what was seen before ages by itself, and no answer is no evidence."""

    def observe_new_connection(self, failure: Failure | None) -> None:
        """Nothing: whether a peer takes new connections is its own agent's question."""

    def probe_took(self, seconds: float) -> None:
        """Nothing: the histogram is of our own PostgreSQL."""
