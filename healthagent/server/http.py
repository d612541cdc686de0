"""aiohttp round the answers: methods, headers, sockets, start and stop."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import cast

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from multidict import CIMultiDict

from healthagent.callers import Callers
from healthagent.clock import decided_now
from healthagent.core.model import Instant
from healthagent.crowd import PATIENCE, Connected, Crowd
from healthagent.listening import Listening
from healthagent.server.answers import Answer, Answers, refusal
from healthagent.server.haproxy_state import HEADER, SESSIONS_HEADER, HaproxyStates
from healthagent.server.lane import Door
from healthagent.server.limits import BoundedServer, Connection

SPOKEN = (HttpVersion10, HttpVersion11)
READ = ("GET", "HEAD", "OPTIONS")

Post = Callable[[BaseRequest], Awaitable[Answer]]
Page = Callable[[BaseRequest], Awaitable[StreamResponse]]


STRANGER = refusal(HTTPStatus.FORBIDDEN, "this address is not in checks.allow")


class Surface:
    """The HTTP server: one table of answers, and what else is mounted beside it."""

    def __init__(
        self,
        answers: Answers,
        clock: Callable[[], Instant],
        connections: int,
        loop: asyncio.AbstractEventLoop,
        listening: Listening | None = None,
        callers: Callers | None = None,
    ) -> None:
        self.answers = answers
        self.callers = callers or Callers()
        self.posts: dict[str, Post] = {}
        self.pages: dict[str, Page] = {}  # GETs with a response of their own
        self.exchanges: dict[str, Page] = {}  # POSTs with a response of their own
        self.checks: Counter[tuple[str, int]] = Counter()
        self.haproxy_states = HaproxyStates()
        self.crowd: Crowd[Connected] = Crowd(connections, loop)
        self._clock = clock
        self._loop = loop
        self._server = BoundedServer(self._handle, self.crowd)
        self.listening = listening or Listening(loop)

    async def listen(self, host: str | None, port: int, tls: ssl.SSLContext | None = None) -> list[int]:
        """Answer on a TCP address; returns the ports, which the kernel chose when `port` is 0."""
        # the crowd knows a client only after the handshake, so that has a limit of its own
        return await self.listening.tcp(self._door, host, port, tls, PATIENCE)

    async def listen_unix(self, path: Path) -> None:
        """Answer on a Unix socket, which only those who may enter its folder reach.

        A socket left behind there is replaced; anything else there is an OSError.
        """
        await self.listening.unix(self._door, path)

    async def adopt(self, client: socket.socket, read: bytes) -> None:
        """Go on with a predecessor's client, of whose next question so much was read."""
        _, door = await self._loop.connect_accepted_socket(self._door, client)
        if read:
            door.data_received(read)

    async def close(self) -> None:
        """Stop listening and hang up on everybody, after half a second for what is being answered."""
        self.listening.close()
        await self._server.shutdown(0.5)  # knows those of aiohttp only
        for connection in self.crowd:
            if connection.transport is not None:
                connection.transport.close()

    def _door(self) -> Door:
        return Door(self.crowd, self._check, self._server, self.callers.let_in)

    def _check(self, path: str, query: str, haproxy: tuple[str, str], sender: str) -> Answer | None:
        """A plain check, answered without aiohttp; None for every other path."""
        path = _plain(path)
        answer = decided_now(partial(self.answers.answer, path, query), self._clock)
        if answer is not None:
            self.haproxy_states.note(sender, *haproxy, self._clock())
            self.checks[path, answer.status] += 1
        return answer

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        self.crowd.served(cast(Connection, request.protocol))
        if request._version not in SPOKEN:  # `version` would remember it, see _unspoken
            return _unspoken(request)
        path = _plain(request.path)
        if path not in self.exchanges and not self.callers.let_in(request.transport):
            self.callers.refused += 1
            return _response(STRANGER, request.method)  # /peer knows its callers by other means
        methods = self._methods(path)
        if not methods:
            response: StreamResponse = _response(self._unknown(path), request.method)
        elif request.method not in methods:
            allow = ", ".join(methods)
            refused = refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allow}")
            response = _response(refused, request.method, allow)
        elif request.method == "POST":
            response = await self._posted(request, path)
        else:
            response = await self._read(request, path)
        self.checks[path if methods else "other", response.status] += 1
        if self.crowd.leaving:
            response.force_close()
        return response

    def _methods(self, path: str) -> tuple[str, ...]:
        """What a path takes; nothing for one that there is not."""
        reads = READ if path in self.pages or self.answers.knows(path) else ()
        return (*reads, "POST") if path in self.posts or path in self.exchanges else reads

    async def _posted(self, request: BaseRequest, path: str) -> StreamResponse:
        post = self.posts.get(path)
        return _response(await post(request)) if post is not None else await self.exchanges[path](request)

    async def _read(self, request: BaseRequest, path: str) -> StreamResponse:
        allow = ", ".join(self._methods(path)) if request.method == "OPTIONS" else None
        page = self.pages.get(path)
        if page is not None:
            response = await page(request)
            return response if allow is None else _response(Answer(response.status, b""), "OPTIONS", allow)
        self._note_haproxy(request)
        # undecoded: parse_query does that, and to decode twice is to read what nobody wrote
        decide = partial(self.answers.answer, path, request.rel_url.raw_query_string)
        answer = decided_now(decide, self._clock)
        assert answer is not None, "the answers know this path"
        return _response(answer, request.method, allow)

    def _unknown(self, path: str) -> Answer:
        paths = sorted({*self.answers.paths(), *self.pages, *self.posts})
        return refusal(HTTPStatus.NOT_FOUND, f"no such path: {path[:100]!r}", paths=paths)

    def _note_haproxy(self, request: BaseRequest) -> None:
        state, sessions = (request.headers.get(name, "") for name in (HEADER, SESSIONS_HEADER))
        self.haproxy_states.note(request.remote or "", state, sessions, self._clock())


def _unspoken(request: BaseRequest) -> Response:
    """The refusal of another version of HTTP, or of a request line without one."""
    if request._version.major > 1:
        refused = refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    else:
        refused = refusal(
            HTTPStatus.BAD_REQUEST, "the request line says no version: want HTTP/1.0 or HTTP/1.1"
        )
    request._version = HttpVersion11  # else aiohttp answers in a version that is not ours
    response = _response(refused, request.method)
    response.force_close()
    return response


def _plain(path: str) -> str:
    return path[:-1] if len(path) > 1 and path.endswith("/") else path


def _response(answer: Answer, method: str = "GET", allow: str | None = None) -> Response:
    headers = CIMultiDict({"Content-Type": answer.content_type, "Cache-Control": "no-store"})
    if answer.reason is not None:
        headers["X-Healthagent-Reason"] = answer.reason
    if allow is not None:
        headers["Allow"] = allow
    return Response(status=answer.status, body=b"" if method == "OPTIONS" else answer.body, headers=headers)
