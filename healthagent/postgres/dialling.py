"""Open a connection, or be rid of it, by a deadline.

A cancelled asyncpg.connect() closes what it has opened, and TLS closes politely: for 30 s it waits for a
server that does not answer, and takes one of its slots meanwhile. asyncpg keeps the transport to itself until
it is connected, so it is given an event loop that notes what is opened on it, and that is aborted.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def connect(arguments: dict[str, Any], deadline: float) -> Connection:
    """Connect before `deadline` (loop time), or leave nothing behind.

    Raises TimeoutError, or what asyncpg.connect() raises for `arguments`; of settings that it cannot use an
    InterfaceError.
    """
    loop = _NotingLoop(asyncio.get_running_loop())
    try:
        async with asyncio.timeout_at(deadline):
            connection: Connection = await asyncpg.connect(
                **arguments, loop=cast(asyncio.AbstractEventLoop, loop)
            )
    except BaseException as error:
        loop.abort()
        if isinstance(error, ValueError) and not isinstance(error, OSError | asyncpg.InterfaceError):
            # asyncpg lets it through for settings that it cannot parse: not quoted, it may hold a password.
            raise asyncpg.InterfaceError("the connection settings cannot be used") from error
        raise
    loop.opened.clear()
    return connection


class _NotingLoop:
    """The running event loop, as asyncpg.connect() sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.opened: list[asyncio.BaseTransport] = []

    def __getattr__(self, name: str) -> Any:  # everything but the two below is the loop's own
        return getattr(self._loop, name)

    async def create_connection(
        self, factory: Callable[[], asyncio.BaseProtocol], *args: Any, **kwargs: Any
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        return self._note(await self._loop.create_connection(_quiet(factory), *args, **kwargs))

    async def create_unix_connection(
        self, factory: Callable[[], asyncio.BaseProtocol], *args: Any, **kwargs: Any
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        return self._note(await self._loop.create_unix_connection(factory, *args, **kwargs))

    def _note(
        self, opened: tuple[asyncio.BaseTransport, asyncio.BaseProtocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        self.opened.append(opened[0])
        return opened

    def abort(self) -> None:
        """Drop all that was opened; under TLS this is the TCP connection below."""
        for transport in self.opened:
            transport.abort()  # type: ignore[attr-defined]  # both kinds of connection have it


def _quiet(factory: Callable[[], asyncio.BaseProtocol]) -> Callable[[], asyncio.BaseProtocol]:
    """Keep asyncio from logging an exception that asyncpg leaves unread.

    If connecting is cancelled in the instant between the TCP handshake and asyncpg's first await, its
    protocol for the TLS question puts the loss into a future that nobody has.
    """

    def make() -> asyncio.BaseProtocol:
        protocol = factory()
        answered: asyncio.Future[bool] | None = getattr(protocol, "on_data", None)
        if answered is not None:
            answered.add_done_callback(lambda future: future.cancelled() or future.exception())
        return protocol

    return make
