"""Listening sockets: bound here, or inherited from the agent whose place this one takes.

A socket that listens keeps its queue while no process accepts from it, so a client that connects between
two agents waits a moment and is answered by the second.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

BACKLOG = 4096

Factory = Callable[[], asyncio.BaseProtocol]
Inherited = Mapping[str, Sequence[socket.socket]]  # by address: HOST:PORT as configured, or a path


class Listening:
    """All listeners of one server; with `start` false they accept nobody before `open`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, inherited: Inherited | None = None, *, start: bool = True
    ) -> None:
        self._loop = loop
        self._inherited = inherited or {}
        self._start = start
        self._listeners: dict[str, list[asyncio.Server]] = {}
        self._secured: dict[str, tuple[Factory, float]] = {}  # those over TLS

    async def tcp(
        self, factory: Factory, host: str | None, port: int, tls: ssl.SSLContext | None, handshake: float
    ) -> list[int]:
        """Listen on a TCP address; returns the ports, which the kernel chose when `port` is 0."""
        address = f"{host}:{port}"
        if tls is not None:
            self._secured[address] = (factory, handshake)
        timeout = None if tls is None else handshake
        heirlooms = self._inherited.get(address, ())
        listeners = [
            await self._loop.create_server(
                factory,
                sock=one.dup(),
                ssl=tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=timeout,
                start_serving=self._start,
            )
            for one in heirlooms
        ]
        if not listeners:
            listeners.append(
                await self._loop.create_server(
                    factory,
                    host,
                    port,
                    ssl=tls,
                    backlog=BACKLOG,
                    ssl_handshake_timeout=timeout,
                    start_serving=self._start,
                )
            )
        self._listeners[address] = listeners
        return [one.getsockname()[1] for listener in listeners for one in listener.sockets]

    async def unix(self, factory: Factory, path: Path) -> None:
        """Listen on a Unix socket; one left behind there is replaced, anything else there is an OSError."""
        heirlooms = self._inherited.get(str(path), ())
        listeners = [
            await self._loop.create_unix_server(
                factory, sock=one.dup(), backlog=BACKLOG, start_serving=self._start
            )
            for one in heirlooms
        ]
        if not listeners:
            listeners.append(
                await self._loop.create_unix_server(factory, path, backlog=BACKLOG, start_serving=self._start)
            )
        self._listeners[str(path)] = listeners

    async def renew(self, tls: ssl.SSLContext) -> None:
        """Let new connections over TLS have another certificate; present ones go on.

        Another server takes over each listening socket: nobody is refused meanwhile.
        """
        for address, (factory, handshake) in self._secured.items():
            old = self._listeners[address]
            self._listeners[address] = [
                await self._loop.create_server(
                    factory,
                    sock=socket.socket(fileno=os.dup(one.fileno())),
                    ssl=tls,
                    backlog=BACKLOG,
                    ssl_handshake_timeout=handshake,
                    start_serving=self._start,
                )
                for listener in old
                for one in listener.sockets
            ]
            for listener in old:
                listener.close()

    async def open(self) -> None:
        """Accept from now on."""
        self._start = True
        for listeners in self._listeners.values():
            for listener in listeners:
                await listener.start_serving()

    def offers(self) -> dict[str, list[int]]:
        """The descriptors by address, for a successor. They stay ours."""
        return {
            address: [one.fileno() for listener in listeners for one in listener.sockets]
            for address, listeners in self._listeners.items()
        }

    def close(self) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.close()
