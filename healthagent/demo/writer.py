"""A client that writes all the time through one port, and which node took each write."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import asyncpg

from healthagent.clock import boottime
from healthagent.core.model import Instant
from healthagent.demo.agent import HOST

PAUSE = 0.02  # seconds between two writes
PATIENCE = 1.0  # seconds for a connect, and for a write

# cluster_name is folder/NAME; the server itself says who it is, so this is where a write went.
INSERT = "INSERT INTO demo VALUES (DEFAULT) RETURNING split_part(current_setting('cluster_name'), '/', 2)"

# The last one is how asyncpg says that the connection broke in the middle of a statement.
BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
TABLE = "CREATE TABLE demo (number bigint GENERATED ALWAYS AS IDENTITY)"


@dataclass(frozen=True)
class Write:
    """An acknowledged write."""

    node: str
    asked_at: Instant
    done_at: Instant


class Writer:
    """One session that writes, and connects again when it is cut; a context manager."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writes: list[Write] = []
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    def __enter__(self) -> Self:
        self._running = self._thread.submit(lambda: asyncio.run(self._write_until_stopped()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.shutdown()
        if kind is None:
            self._running.result()

    async def _write_until_stopped(self) -> None:
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    connection = await asyncpg.connect(
                        host=HOST, port=self.port, user="postgres", database="postgres", ssl=False
                    )
            except BROKEN:
                await asyncio.sleep(PAUSE)
                continue
            try:
                await self._write_on(connection)
            except BROKEN:
                pass  # cut, or refused: the next connection tells more
            finally:
                connection.terminate()

    async def _write_on(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        while not self._stop.is_set():
            asked_at = boottime()
            async with asyncio.timeout(PATIENCE):
                node = await connection.fetchval(INSERT)
            self.writes.append(Write(str(node), asked_at, boottime()))
            await asyncio.sleep(PAUSE)

    def since(self, at: Instant) -> list[Write]:
        """The writes asked for from then on."""
        return [write for write in self.writes if write.asked_at >= at]

    def last_on(self, node: str) -> Write | None:
        return next((write for write in reversed(self.writes) if write.node == node), None)

    def first_on(self, node: str) -> Write | None:
        return next((write for write in self.writes if write.node == node), None)
