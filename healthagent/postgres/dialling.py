"""Open a connection, or be rid of it, by a deadline.

A cancelled asyncpg.connect() closes what it has opened, and TLS closes politely: for 30 s it waits for a
server that does not answer, and takes one of its slots meanwhile. asyncpg keeps the transport to itself until
it is connected, so it is given an event loop that notes what is opened on it, and that is aborted.
"""

import asyncio
import errno
import re
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def connect(arguments: dict[str, Any], deadline: float) -> Connection:
    """Connect before `deadline` (loop time), or leave nothing behind.

    Raises TimeoutError, or what asyncpg.connect() raises for `arguments`; an InterfaceError where it cannot
    use them or a file that they name.
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
        if isinstance(error, OSError) and not isinstance(error, TimeoutError) and not loop.dialled:
            # A certificate, say: only a missing socket may look like a server that is down.
            what = error.strerror or type(error).__name__
            raise asyncpg.InterfaceError(
                f"a file of the connection settings cannot be used: {what}"
            ) from error
        if isinstance(error, AttributeError) and str(error) == "server_version":
            # asyncpg takes for granted that it is told; PostgreSQL always tells.
            raise asyncpg.ConnectionDoesNotExistError("it did not say its server_version") from error
        raise
    loop.opened.clear()
    return connection


class _NotingLoop:
    """The running event loop, as asyncpg.connect() sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.opened: list[asyncio.BaseTransport] = []
        self.dialled = False

    def __getattr__(self, name: str) -> Any:  # everything but the two below is the loop's own
        return getattr(self._loop, name)

    async def create_connection(
        self, factory: Callable[[], asyncio.BaseProtocol], *args: Any, **kwargs: Any
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        self.dialled = True
        try:
            return self._note(await self._loop.create_connection(_guarded(_quiet(factory)), *args, **kwargs))
        except OSError as error:
            if _all_refused(error):
                raise ConnectionRefusedError(errno.ECONNREFUSED, str(error)) from error
            raise

    async def create_unix_connection(
        self, factory: Callable[[], asyncio.BaseProtocol], *args: Any, **kwargs: Any
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        self.dialled = True
        return self._note(await self._loop.create_unix_connection(_guarded(factory), *args, **kwargs))

    def _note(
        self, opened: tuple[asyncio.BaseTransport, asyncio.BaseProtocol]
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        transport, protocol = opened
        self.opened.append(transport)
        return transport, protocol.guarded if isinstance(protocol, _Guard) else protocol

    def abort(self) -> None:
        """Drop all that was opened; under TLS this is the TCP connection below."""
        for transport in self.opened:
            transport.abort()  # type: ignore[attr-defined]  # both kinds of connection have it


def _all_refused(error: OSError) -> bool:
    """Whether this is what asyncio says when a name has several addresses and each refused.

    It joins their texts ("Multiple exceptions: [Errno 111] Connect call failed (...), ...") and keeps no
    number. An address that this machine has not, as ::1 without IPv6, is no other word.
    """
    numbers = {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))}
    return error.errno is None and errno.ECONNREFUSED in numbers <= {errno.ECONNREFUSED, errno.EADDRNOTAVAIL}


class _Guard(asyncio.Protocol):
    """Stands between a plain socket and asyncpg, and drops a server that is none.

    asyncpg's reader turns in a circle for ever, and the agent's event loop with it, at a message of type 0.
    PostgreSQL has none ("Frontend/Backend Protocol", Message Formats); another service on that port may.
    After an exchange about TLS asyncpg sets its protocol itself: who answered that speaks PostgreSQL's.
    Every message is a type byte, then its length of four bytes, which counts itself but not the type.
    """

    def __init__(self, guarded: asyncio.Protocol) -> None:
        self.guarded = guarded
        self._left = 0  # bytes of the present message that are still to come
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.guarded.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.guarded.connection_lost(error)

    def eof_received(self) -> bool | None:
        return self.guarded.eof_received()

    def pause_writing(self) -> None:
        self.guarded.pause_writing()

    def resume_writing(self) -> None:
        self.guarded.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._is_sound(data):
            self.guarded.data_received(data)
        else:
            self._transport.abort()  # type: ignore[attr-defined]  # a socket's has it

    def _is_sound(self, data: bytes) -> bool:
        at = 0
        while at < len(data):
            passed = min(self._left, len(data) - at)
            self._left -= passed
            at += passed
            taken = data[at : at + 5 - len(self._head)] if self._left == 0 else b""
            self._head += taken
            at += len(taken)
            if self._head[:1] == b"\0":
                return False
            if len(self._head) == 5:
                self._left = max(0, int.from_bytes(self._head[1:], "big") - 4)
                self._head = b""
        return True


def _guarded(factory: Callable[[], asyncio.BaseProtocol]) -> Callable[[], asyncio.BaseProtocol]:
    """Guard what speaks PostgreSQL's protocol; what only asks whether there is TLS reads a single byte."""

    def make() -> asyncio.BaseProtocol:
        protocol = factory()
        return _Guard(protocol) if isinstance(protocol, asyncpg.protocol.Protocol) else protocol

    return make


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
