"""What an operator may change: maintenance, and latches that only a person can judge.

Only over the Unix socket, from loopback, or with the token. A web page can make a browser on
this machine post to loopback, and a proxy on this machine brings callers from anywhere: both
leave a mark in the headers, and are believed with the token only.
"""

import hmac
import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, TypeVar

import msgspec
from aiohttp.web_request import BaseRequest
from msgspec import Meta, Struct

from .board import Board
from .core.model import Instant
from .core.view import Maintenance
from .events import Events, Kind
from .server.answers import Answer, refusal

T = TypeVar("T")
MAX_BODY = 4096  # bytes
LONGEST = 366 * 86400.0  # seconds of one maintenance
FROM_ELSEWHERE = ("Origin", "Forwarded", "X-Forwarded-For", "Via")  # whom loopback speaks for


class MaintenanceAsked(Struct, frozen=True, forbid_unknown_fields=True):
    on: bool
    seconds: Annotated[float, Meta(gt=0, le=LONGEST)] | None = None  # absent: until somebody ends it


class OverrideAsked(Struct, frozen=True, forbid_unknown_fields=True):
    clear: bool  # forget that a newer timeline was served, and an unresolved conflict, on this node


class Control:
    """The POSTs that change state."""

    def __init__(self, board: Board, clock: Callable[[], Instant], token: str | None, events: Events) -> None:
        self.board = board
        self.token = token
        self._clock = clock
        self._events = events

    async def maintenance(self, request: BaseRequest) -> Answer:
        """POST /maintenance {"on": true, "seconds": 3600}."""
        asked = await self._asked(request, MaintenanceAsked)
        if isinstance(asked, Answer):
            return asked
        now = self._clock()
        until = None if asked.seconds is None else now + asked.seconds
        self.board.maintain(Maintenance(until) if asked.on else None, now)
        how_long = "until somebody ends it" if asked.seconds is None else f"for {asked.seconds:g} s"
        self._events.add(
            Kind.MAINTENANCE,
            now,
            reason="on" if asked.on else "off",
            detail=how_long if asked.on else "",
            who=_who(request),
        )
        return Answer(HTTPStatus.OK, msgspec.json.encode({"on": asked.on, "seconds": asked.seconds}))

    async def override(self, request: BaseRequest) -> Answer:
        """POST /override {"clear": true}."""
        asked = await self._asked(request, OverrideAsked)
        if isinstance(asked, Answer):
            return asked
        now = self._clock()
        cleared = self.board.forgive(now) if asked.clear else []
        if asked.clear:
            what = f"cleared {', '.join(cleared)}" if cleared else "there was nothing to clear"
            self._events.add(Kind.OVERRIDE, now, reason="clear", detail=what, who=_who(request))
        return Answer(HTTPStatus.OK, msgspec.json.encode({"cleared": cleared}))

    async def _asked(self, request: BaseRequest, kind: type[T]) -> T | Answer:
        refused = self._refused(request)
        if refused is not None:
            return refused
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > MAX_BODY:
                return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: at most {MAX_BODY} bytes")
        try:
            return msgspec.json.decode(bytes(body), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return refusal(HTTPStatus.BAD_REQUEST, f"body: {error}")

    def _refused(self, request: BaseRequest) -> Answer | None:
        if not self._trusted(request):
            return refusal(
                HTTPStatus.FORBIDDEN,
                "state is changed from loopback, over the control socket, or with the bearer token only",
            )
        if request.content_type != "application/json":
            return refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type: want application/json")
        return None

    def _trusted(self, request: BaseRequest) -> bool:
        if self._has_token(request):
            return True
        transport = request.transport
        if transport is None or any(name in request.headers for name in FROM_ELSEWHERE):
            return False
        peer = transport.get_extra_info("peername")
        if not isinstance(peer, tuple):
            return transport.get_extra_info("sockname") is not None  # a Unix socket has no address
        return _is_loopback(str(peer[0]))

    def _has_token(self, request: BaseRequest) -> bool:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        return self.token is not None and hmac.compare_digest(given, f"Bearer {self.token}".encode())


def _who(request: BaseRequest) -> str:
    """From where an operator spoke: the address, or the socket, which has none."""
    return request.remote or "the control socket"


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
