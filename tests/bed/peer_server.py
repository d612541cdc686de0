"""Peers in this process: one that answers whatever a test wants, byte for byte, and the real answering half.

async with WildPeer(b"HTTP/1.1 200 OK\r\n\r\n") as peer:      # or a function that plays the connection
    ... ask peer.url ...
    await peer.asked(3)                                        # until the third question has come

async with answering(board, exchange) as url: ...
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse

from healthagent.board import Board
from healthagent.clock import boottime
from healthagent.peers.exchange import HEADER, Exchange
from healthagent.peers.listener import PeerListener
from healthagent.server.answers import Answers
from healthagent.server.http import Surface

# plays one connection after its request was read: request line, then what to write to
Play = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class WildPeer:
    """A server on loopback that answers every request with the same bytes, or by a function."""

    def __init__(self, answer: bytes | Play) -> None:
        self.answer = answer  # may be changed at any time
        self.requests: list[str] = []  # request lines
        self.host, self.port = "127.0.0.1", 0
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def asked(self, times: int, path: str = "", within: float = 20.0) -> None:
        """Wait until so many requests with this in their request line have come."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: sum(path in line for line in self.requests) >= times)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        for writer in tuple(self._connections):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line = head.split(b"\r\n", 1)[0].decode()
                for field in head.lower().split(b"\r\n"):
                    if field.startswith(b"content-length:"):
                        await reader.readexactly(int(field.split(b":")[1]))
                async with self._news:
                    self.requests.append(line)
                    self._news.notify_all()
                if not isinstance(self.answer, bytes):
                    await self.answer(line, writer)
                    return
                writer.write(self.answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # hung up on: what many tests are about
        finally:
            self._connections.discard(writer)
            writer.close()


@contextlib.asynccontextmanager
async def answering(
    board: Board,
    exchange: Exchange | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    certified_only: bool = False,
    port: int = 0,
) -> AsyncIterator[tuple[str, PeerListener]]:
    """The real /peer on a free port: its URL and the listener."""
    listener = PeerListener(board, boottime, exchange, certified_only=certified_only)
    surface = Surface(Answers(board), boottime, 200, asyncio.get_running_loop())

    async def tell(request: BaseRequest) -> StreamResponse:
        answer = await listener.tell(request)
        return Response(status=answer.status, body=answer.body, content_type=answer.content_type)

    async def hear(request: BaseRequest) -> StreamResponse:
        answer, signature = await listener.exchange_with(request)
        headers = {HEADER: signature} if signature else None
        return Response(status=answer.status, body=answer.body, headers=headers)

    surface.pages["/peer"] = tell
    surface.exchanges["/peer"] = hear
    [bound] = await surface.listen("127.0.0.1", port, tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{bound}", listener
    finally:
        await surface.close()
