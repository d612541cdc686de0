"""Bounds on clients: how many, how long, how much. A client that dawdles is dropped.

aiohttp times out an idle keep-alive connection but not one that has sent nothing, or half
a header, yet. Here every connection has `PATIENCE` seconds for its next complete request,
and when there are as many as the process may have, the one that waited longest makes room:
silent clients can therefore never keep a checker out.
"""

import asyncio
import contextlib
import logging
import resource
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

PATIENCE = 5.0  # seconds from connecting, or from the last request, to the next one
RESERVED_FILES = 128  # descriptors kept for PostgreSQL, peers, the state file and logs
MAX_HEADER = 8190  # bytes of the request line, and of each header; aiohttp answers 400 above
MAX_HEADERS = 64
CERTAINLY_ENOUGH = 20_000  # connections, where the file limit would allow more

log = logging.getLogger(__name__)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns how many connections fit below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(
        ValueError, OSError
    ):  # a seccomp profile may forbid it: then the soft one counts
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return CERTAINLY_ENOUGH
    return max(16, min(soft - RESERVED_FILES, CERTAINLY_ENOUGH))


class Connection(RequestHandler):
    """One client's connection, known to the crowd that it belongs to."""

    __slots__ = ("crowd",)

    def __init__(self, server: "BoundedServer", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None switches it off, as the documentation says
            keepalive_timeout=PATIENCE,
            lingering_time=0.5,
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
        )
        self.crowd = server.crowd

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.crowd.admit(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.crowd.forget(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A client's mistake is answered, not logged; a bug of ours is both."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=status, text="bad request\n")
        response.force_close()
        return response


class Crowd:
    """All connections, the longest waiting first."""

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        self.most = most
        self._loop = loop
        self._since: dict[Connection, float] = {}
        self._exempt: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._since)

    def admit(self, connection: Connection) -> None:
        if len(self._since) >= self.most:
            self._drop(next(iter(self._since)))
        self._since[connection] = self._loop.time()

    def served(self, connection: Connection) -> None:
        """Note a complete request: the wait for the next one begins."""
        if self._since.pop(connection, None) is not None:
            self._since[connection] = self._loop.time()

    def forget(self, connection: Connection) -> None:
        self._since.pop(connection, None)
        self._exempt.discard(connection)

    def exempt(self, connection: Connection) -> None:
        """Let a long answer take its time; whoever asks for this bounds how many there are."""
        self._exempt.add(connection)

    def _drop(self, connection: Connection) -> None:
        self._since.pop(connection, None)
        if connection.transport is not None:
            connection.transport.abort()

    async def reap(self) -> None:
        """Drop those that have waited too long, for ever."""
        while True:
            await asyncio.sleep(PATIENCE / 10)
            latest = self._loop.time() - PATIENCE
            for connection in [one for one, since in self._since.items() if since <= latest]:
                if connection not in self._exempt:
                    self._drop(connection)


class BoundedServer(web.Server):
    """aiohttp's low-level server with connections of ours."""

    def __init__(self, handler: Handler, crowd: Crowd) -> None:
        super().__init__(handler)
        self.crowd = crowd

    def __call__(self) -> RequestHandler:
        return Connection(self, self._loop)
