"""All connections of one server, bounded: the one that waited longest makes room for the next.

Silent clients can therefore never keep a checker out, however many they are.
"""

import asyncio
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

PATIENCE = 5.0  # seconds from connecting, or from the last request, to the next one


class Connected(Protocol):
    """A protocol of asyncio that keeps its transport, and knows None once that is closed."""

    @property
    def transport(self) -> asyncio.Transport | None: ...


C = TypeVar("C", bound=Connected)


class Crowd(Generic[C]):
    """All connections, the longest waiting first."""

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        self.most = most
        self._loop = loop
        self._since: dict[C, float] = {}
        self._exempt: set[C] = set()

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._since))

    def admit(self, connection: C) -> None:
        if len(self._since) >= self.most:
            self._drop(next(iter(self._since)))
        self._since[connection] = self._loop.time()

    def served(self, connection: C) -> None:
        """Note a complete request: the wait for the next one begins."""
        if self._since.pop(connection, None) is not None:
            self._since[connection] = self._loop.time()

    def forget(self, connection: C) -> None:
        self._since.pop(connection, None)
        self._exempt.discard(connection)

    def exempt(self, connection: C) -> None:
        """Let a long answer take its time; whoever asks for this bounds how many there are."""
        self._exempt.add(connection)

    def _drop(self, connection: C) -> None:
        self._since.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()

    async def reap(self) -> None:
        """Drop those that have waited longer than `PATIENCE`, for ever."""
        while True:
            await asyncio.sleep(PATIENCE / 10)
            latest = self._loop.time() - PATIENCE
            for connection in [one for one, since in self._since.items() if since <= latest]:
                if connection not in self._exempt:
                    self._drop(connection)
