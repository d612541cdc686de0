"""Bounds on clients: how many, how long, how much. A client that dawdles is dropped.

aiohttp times out an idle keep-alive connection but not one that has sent nothing, or half
a header, yet. Here every connection has `PATIENCE` seconds for its next complete request,
and when there are as many as the process may have, the one that waited longest makes room.
"""

import asyncio
import contextlib
import logging
import resource
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

from healthagent.crowd import PATIENCE, Connected, Crowd

RESERVED_FILES = 128  # descriptors kept for PostgreSQL, peers, the state file and logs
MAX_HEADER = 8190  # bytes of the request line, and of each header; aiohttp answers 400 above
MAX_HEADERS = 64
CERTAINLY_ENOUGH = 20_000  # connections, where the file limit would allow more

log = logging.getLogger(__name__)
Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]


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

    __slots__ = ("__weakref__", "crowd")

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

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp declares None, asyncio asks for a bool
        """Answer a client that says no more, then hang up; without this its answer is lost."""
        transport = self.transport
        # over TLS there is no half-closed connection
        if not self.busy or transport is None or transport.get_extra_info("sslcontext") is not None:
            return False
        self.close()
        return True

    @property
    def busy(self) -> bool:
        waiter = self._waiter
        return waiter is None or waiter.done()

    def unanswered(self) -> tuple[int, bytes] | None:
        """Never: what aiohttp has read of a question is inside its parser."""
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.crowd.forget(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """A client's mistake is answered, not logged; a bug of ours is both."""
        # a client that hangs up amid its body: raised where a handler reads it
        if status >= 500 and not isinstance(exc, ConnectionError):
            return super().handle_error(request, status, exc, message)
        response = Response(status=HTTPStatus.BAD_REQUEST, text="bad request\n")
        response.force_close()
        return response


class BoundedServer(Server):
    """aiohttp's low-level server with connections of ours."""

    def __init__(self, handler: Handler, crowd: Crowd[Connected]) -> None:
        super().__init__(handler)
        self.crowd = crowd

    def __call__(self) -> RequestHandler:
        return Connection(self, self._loop)
