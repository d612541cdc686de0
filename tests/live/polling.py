"""Run a Poller against a node and wait for what it tells."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from healthagent.clock import boottime
from healthagent.core.model import Failure, Reason, Snapshot
from healthagent.demo.postgres import Node
from healthagent.postgres import Poller

Found = TypeVar("Found", Snapshot, Failure)


@dataclass
class Told:
    """A sink that keeps what it is told until a test asks."""

    found: asyncio.Queue[Snapshot | Failure] = field(default_factory=asyncio.Queue)
    new_connections: asyncio.Queue[Failure | None] = field(default_factory=asyncio.Queue)
    longest: float = 0.0

    def observe(self, snapshot: Snapshot) -> None:
        self.found.put_nowait(snapshot)

    def observe_failure(self, failure: Failure) -> None:
        self.found.put_nowait(failure)

    def observe_new_connection(self, failure: Failure | None) -> None:
        self.new_connections.put_nowait(failure)

    def probe_took(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)

    async def next(
        self, kind: type[Found], condition: Callable[[Found], bool] = lambda found: True, within: float = 10.0
    ) -> Found:
        """The next snapshot or failure for which `condition` holds; TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while True:
                found = await self.found.get()
                if isinstance(found, kind) and condition(found):
                    return found

    async def next_new_connection(self, reason: Reason | None, within: float = 10.0) -> Failure | None:
        """The next new connection that failed for that reason (None: that did not fail)."""
        async with asyncio.timeout(within):
            while True:
                failure = await self.new_connections.get()
                if (failure and failure.reason) == reason:
                    return failure

    def forget(self) -> None:
        """Look only at what is told from now on."""
        for told in (self.found, self.new_connections):
            while not told.empty():
                told.get_nowait()


@contextlib.asynccontextmanager
async def polling(
    node: Node, *, interval: float = 0.1, timeout: float = 1.0, every: float = 60.0, **arguments: object
) -> AsyncIterator[Told]:
    """Poll a node over TCP, as the role with only pg_monitor unless told otherwise, and end at once."""
    told = Told()
    connect = {"dsn": node.dsn(), **arguments}
    poller = Poller(connect, told, boottime, interval=interval, timeout=timeout, reconnect_every=every)
    task = asyncio.create_task(poller.run())
    try:
        yield told
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.2)
        assert done, "a cancelled poller waits for something"
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def first(node: Node, **arguments: object) -> Snapshot:
    """One snapshot."""
    async with polling(node, **arguments) as told:  # type: ignore[arg-type]  # all go to asyncpg
        return await told.next(Snapshot)


async def rejected(node: Node, **arguments: object) -> Failure:
    """One failure."""
    async with polling(node, **arguments) as told:  # type: ignore[arg-type]  # all go to asyncpg
        return await told.next(Failure)
