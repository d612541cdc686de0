"""aiohttp round the answers: methods, headers, sockets, start and stop."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import cast

from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from multidict import CIMultiDict

from ..core.model import Instant
from ..crowd import Crowd
from .answers import CHECKS, Answer, Answers, refusal
from .haproxy_state import HEADER, HaproxyStates
from .limits import BoundedServer, Connection

BACKLOG = 4096
READ = ("GET", "HEAD", "OPTIONS")

Post = Callable[[BaseRequest], Awaitable[Answer]]
Page = Callable[[BaseRequest], Awaitable[StreamResponse]]


class Surface:
    """The HTTP server: one table of answers, and what else is mounted beside it."""

    def __init__(
        self,
        answers: Answers,
        clock: Callable[[], Instant],
        connections: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.answers = answers
        self.posts: dict[str, Post] = {}
        self.pages: dict[str, Page] = {}  # GETs with a response of their own
        self.exchanges: dict[str, Page] = {}  # POSTs with a response of their own
        self.checks: Counter[tuple[str, int]] = Counter()
        self.haproxy_states = HaproxyStates()
        self.crowd: Crowd[Connection] = Crowd(connections, loop)
        self._clock = clock
        self._loop = loop
        self._server = BoundedServer(self._handle, self.crowd)
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str | None, port: int, tls: ssl.SSLContext | None = None) -> list[int]:
        """Answer on a TCP address; returns the ports, which the kernel chose when `port` is 0."""
        listener = await self._loop.create_server(self._server, host, port, ssl=tls, backlog=BACKLOG)
        self._listeners.append(listener)
        return [socket.getsockname()[1] for socket in listener.sockets]

    async def listen_unix(self, path: Path) -> None:
        """Answer on a Unix socket, which only those who may enter its folder reach."""
        _remove(path)
        self._listeners.append(await self._loop.create_unix_server(self._server, path, backlog=BACKLOG))

    async def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        await self._server.shutdown(0.5)

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        self.crowd.served(cast(Connection, request.protocol))
        path = _plain(request.path)
        page = self.pages.get(path)
        if page is not None and request.method in READ:
            if request.method == "OPTIONS":
                return _response(Answer(HTTPStatus.OK, b"", "text/plain"), "OPTIONS", "GET, HEAD, OPTIONS")
            self.checks[path, 200] += 1
            return await page(request)
        exchange = self.exchanges.get(path)
        if exchange is not None and request.method == "POST":
            response = await exchange(request)
            self.checks[path, response.status] += 1
            return response
        answer, allow = await self._answer(request, path)
        known = path if path in CHECKS or path in self.posts or path in self.answers.documents else "other"
        self.checks[known, answer.status] += 1
        return _response(answer, request.method, allow)

    async def _answer(self, request: BaseRequest, path: str) -> tuple[Answer, str | None]:
        post = self.posts.get(path)
        if request.method == "POST" and post is not None:
            return await post(request), None
        if request.method in READ:
            answer = self.answers.answer(path, request.query_string, self._clock())
            if answer is not None:
                self._note_haproxy(request)
                return answer, ("GET, HEAD, OPTIONS" if request.method == "OPTIONS" else None)
            if post is None:
                return self._unknown(path), None
        elif self.answers.answer(path, "", self._clock()) is None and post is None:
            return self._unknown(path), None
        allow = "POST" if post is not None else "GET, HEAD, OPTIONS"
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allow}"), allow

    def _unknown(self, path: str) -> Answer:
        paths = sorted({*self.answers.paths(), *self.pages, *self.posts})
        return refusal(HTTPStatus.NOT_FOUND, f"no such path: {path[:100]}", paths=paths)

    def _note_haproxy(self, request: BaseRequest) -> None:
        header = request.headers.get(HEADER)
        if header is not None:
            self.haproxy_states.note(request.remote or "", header, self._clock())


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _plain(path: str) -> str:
    return path[:-1] if len(path) > 1 and path.endswith("/") else path


def _response(answer: Answer, method: str, allow: str | None) -> Response:
    headers = CIMultiDict({"Content-Type": answer.content_type, "Cache-Control": "no-store"})
    if answer.reason is not None:
        headers["X-Healthagent-Reason"] = answer.reason
    if allow is not None:
        headers["Allow"] = allow
    return Response(status=answer.status, body=b"" if method == "OPTIONS" else answer.body, headers=headers)
