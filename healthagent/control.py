"""What an operator may change: maintenance, and latches that only a person can judge.

Only over the Unix socket, from loopback, or with the token. A web page can make a browser on
this machine post to loopback, and a proxy on this machine brings callers from anywhere: both
leave a mark in the headers, and are believed with the token only.
"""

import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Literal, TypeVar

import msgspec
from aiohttp.web_request import BaseRequest
from msgspec import Meta, Struct

from healthagent.board import Board
from healthagent.core.forced import objection
from healthagent.core.model import Instant
from healthagent.core.view import Maintenance, Override
from healthagent.events import Events, Kind
from healthagent.server.answers import Answer, refusal

T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_BODY = 4096  # bytes
LONGEST = 366 * 86400.0  # seconds of one maintenance
LONGEST_ON = 3600.0  # seconds for which an operator's word may stand in for the rules
FROM_ELSEWHERE = ("Origin", "Forwarded", "X-Forwarded-For", "Via")  # whom loopback speaks for


Said = Annotated[str, Meta(max_length=200)]  # a person's name, or why: told on, so bounded


class MaintenanceAsked(Struct, frozen=True, forbid_unknown_fields=True):
    on: bool
    seconds: Annotated[float, Meta(gt=0, le=LONGEST)] | None = None  # absent: until somebody ends it
    who: Said = ""
    why: Said = ""


class OverrideAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of clear, primary and end."""

    clear: bool = False  # forget that a newer timeline was served, and an unresolved conflict, on this node
    primary: Literal["on", "off"] | None = None  # the verdict on /primary for so many seconds
    seconds: Annotated[float, Meta(gt=0, le=LONGEST)] | None = None
    end: bool = False  # leave the verdict to the rules again
    who: Said = ""
    why: Said = ""


class Control:
    """The POSTs that change state."""

    def __init__(self, board: Board, clock: Callable[[], Instant], token: str | None, events: Events) -> None:
        self.board = board
        self.token = token
        self.why_unsaved: Callable[[], Awaitable[str | None]] = _without_a_file
        self._clock = clock
        self._events = events

    async def maintenance(self, request: BaseRequest) -> Answer:
        """POST /maintenance {"on": true, "seconds": 3600, "who": "alice", "why": "new kernel"}."""
        asked = await self._asked(request, MaintenanceAsked)
        if isinstance(asked, Answer):
            return asked
        now, who, why = self._clock(), _line(asked.who), _line(asked.why)
        until = None if asked.seconds is None else now + asked.seconds
        self.board.maintain(Maintenance(until, who, why) if asked.on else None, now)
        how_long = "until somebody ends it" if asked.seconds is None else f"for {asked.seconds:g} s"
        detail = how_long if asked.on else ""
        self._tell(Kind.MAINTENANCE, "on" if asked.on else "off", detail, who, why, request)
        return await self._done(on=asked.on, seconds=asked.seconds)

    async def override(self, request: BaseRequest) -> Answer:
        """POST /override {"clear": true}, {"primary": "on", "seconds": 300, "why": "x"} or {"end": true}."""
        asked = await self._asked(request, OverrideAsked)
        if isinstance(asked, Answer):
            return asked
        if [asked.clear, asked.primary is not None, asked.end].count(True) != 1:
            return refusal(HTTPStatus.BAD_REQUEST, "body: want exactly one of clear, primary and end")
        if asked.primary is not None:
            return await self._force(asked, request)
        now, who, why = self._clock(), _line(asked.who), _line(asked.why)
        if asked.end:
            ended = self.board.memory.override is not None
            self.board.force(None, now)
            self._tell(Kind.OVERRIDE, "end", "" if ended else "there was none", who, why, request)
            return await self._done(ended=ended)
        cleared = self.board.forgive(now)
        what = f"cleared {', '.join(cleared)}" if cleared else "there was nothing to clear"
        self._tell(Kind.OVERRIDE, "clear", what, who, why, request)
        return await self._done(cleared=cleared)

    async def _force(self, asked: OverrideAsked, request: BaseRequest) -> Answer:
        now, on, board = self._clock(), asked.primary == "on", self.board
        if asked.seconds is None or (on and asked.seconds > LONGEST_ON):
            most = f" of at most {LONGEST_ON:g}" if on else ""
            return refusal(
                HTTPStatus.BAD_REQUEST, f"seconds: want a number{most}: an override ends by itself"
            )
        who, why, snapshot = _line(asked.who), _line(asked.why), board.local.snapshot
        if on and not why:
            return refusal(HTTPStatus.BAD_REQUEST, "why: an override that permits needs a reason")
        timeline = snapshot.timeline if snapshot else None
        why_not = objection(board.view(now), board.policy) if on else None
        if why_not is not None:
            return refusal(HTTPStatus.CONFLICT, why_not)
        board.force(Override(on, now, now + asked.seconds, timeline, who, why), now)
        self._tell(Kind.OVERRIDE, f"primary {asked.primary}", f"for {asked.seconds:g} s", who, why, request)
        return await self._done(primary=asked.primary, seconds=asked.seconds)

    async def _done(self, **said: object) -> Answer:
        """It is in force already; whoever asked may also rely on it after a restart, or is told why not."""
        why_not = await self.why_unsaved()
        more = {} if why_not is None else {"not_saved": f"in force, but a restart would forget it: {why_not}"}
        return Answer(HTTPStatus.OK, msgspec.json.encode({**said, **more}))

    def _tell(self, kind: Kind, what: str, detail: str, who: str, why: str, request: BaseRequest) -> None:
        """In the log and the events: what was done, who says that it was them, and from where."""
        place = request.remote or "the control socket"  # which has no address
        person = f"{who} at {place}" if who else place
        log.warning("%s %s by %s: %s%s", kind, what, person, detail or "done", f" ({why})" if why else "")
        self._events.add(kind, self._clock(), reason=what, detail=detail, who=person, why=why or None)

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


async def _without_a_file() -> str | None:
    return "state_dir is null"


def _line(text: str) -> str:
    """One printable line: it goes to logs, terminals and the answers of every check."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
