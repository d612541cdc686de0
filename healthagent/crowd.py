"""All connections of one server, bounded: the one that waited longest makes room for the next.

Silent clients can therefore never keep a checker out, however many they are.
"""

import asyncio
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

PATIENCE = 5.0  # seconds from connecting, or from the last request, to the next one


class Connected(Protocol):
    """A protocol of asyncio that keeps its transport, and knows None once that is closed."""

    @property
    def transport(self) -> asyncio.Transport | None: ...

    @property
    def busy(self) -> bool:
        """Whether what it asked is on its way, being answered, or being written."""
        ...

    def unanswered(self) -> tuple[int, bytes] | None:
        """Its descriptor and what was read of its next question, where another process could answer it."""
        ...


C = TypeVar("C", bound=Connected)


class Crowd(Generic[C]):
    """All connections, the longest waiting first."""

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        self.most = most
        self.leaving = False  # another process is about to take over: nobody is to stay who cannot be moved
        self._loop = loop
        self._since: dict[C, float] = {}
        self._exempt: set[C] = set()
        self._arriving: WeakSet[C] = WeakSet()  # accepted, not connected yet: a TLS handshake, say

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._since))

    @property
    def busy(self) -> bool:
        """Whether anybody is about to be answered who would miss the answer if this process ended now."""
        return bool(self._arriving) or any(one.busy for one in self._since if one not in self._exempt)

    def expect(self, connection: C) -> None:
        """Note one that was accepted; `admit` follows, unless it goes before."""
        self._arriving.add(connection)

    def admit(self, connection: C) -> None:
        self._arriving.discard(connection)
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
