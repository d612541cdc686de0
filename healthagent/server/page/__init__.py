"""/ui: one page, made here, that shows the cluster to a person. GET only; it changes nothing.

It works without JavaScript, by reloading; with it, what changed is fetched each second and put
in place. Nothing comes from elsewhere, and the browser is told to run nothing but our script.
"""

import base64
import hashlib
from asyncio import Lock
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse

from healthagent.board import Board
from healthagent.core.model import Instant, Verdict
from healthagent.events import Events
from healthagent.history import MOST_MEMBERS, SLOT, History
from healthagent.server.page.cluster import Seen, live, title
from healthagent.server.page.hour import hour_section
from healthagent.server.page.markup import Html, tag
from healthagent.server.places import Places, nowhere
from healthagent.standing import Standing, standings

KEPT_FOR = 1.0  # seconds for which a rendering is good, while the own verdicts stay the same
SHOWN_EVENTS = 20
RELOAD = 5  # seconds, without JavaScript
HERE = Path(__file__).parent
STYLE = (HERE / "page.css").read_text()  # at import: no answer waits for a disk
SCRIPT = (HERE / "page.js").read_text()
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect x='1' y='1'"
    " width='14' height='14' rx='3' fill='%230b5cad'/%3E%3Cpath d='M3 9h3l1.5-4 2 6L11 8h2' fill='none'"
    " stroke='white' stroke-width='1.6'/%3E%3C/svg%3E"
)


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TILE, HALF = 'width="6" height="6" patternUnits="userSpaceOnUse"', 'width="3" height="6"'
TURNED = "patternTransform"
BACK = '<rect width="6" height="6" class="p-back"/>'
# patterns for all shapes: a picture of its own, since one that is not displayed would take them along
PATTERNS = Html(
    '<svg width="0" height="0" class="patterns" aria-hidden="true" focusable="false"><defs>'
    f'<pattern id="hatch" {TILE} {TURNED}="rotate(45)">{BACK}<rect {HALF} class="p-bad"/></pattern>'
    f'<pattern id="hatch-soft" {TILE} {TURNED}="rotate(-45)">{BACK}<rect {HALF} class="p-warn"/></pattern>'
    f'<pattern id="dots" {TILE}>{BACK}<rect x="1" y="1" width="3" height="3" class="p-dim"/></pattern>'
    "</defs></svg>"
)


class StatusPage:
    """Renders at most once a second, and whenever a verdict of this node is another."""

    def __init__(
        self,
        board: Board,
        events: Events,
        history: History,
        clock: Callable[[], Instant],
        alarms: Callable[[], list[str]],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.places: Places = nowhere
        self.renderings = 0
        self._board = board
        self._events = events
        self._history = history
        self._clock = clock
        self._alarms = alarms
        self._wall = wall
        self._rendering = Lock()
        self._rendered = (Html(""), "")
        self._rendered_at: Instant = float("-inf")
        self._rendered_for: tuple[Verdict, Verdict] | None = None
        self._hour = Html("")
        self._hour_of: tuple[int, tuple[str, ...]] | None = None

    async def __call__(self, request: BaseRequest) -> StreamResponse:
        """GET /ui, or with ?part=live what changes of it."""
        part, name = await self._current()
        body = part if request.query.get("part") == "live" else document(part, name)
        return Response(status=HTTPStatus.OK, body=body.encode(), headers=HEADERS)

    async def _current(self) -> tuple[Html, str]:
        """The part that changes, and the title."""
        async with self._rendering:  # whoever comes meanwhile gets the same one
            now = self._clock()
            asked = (self._board.primary(now), self._board.replica(now))  # never an older verdict than this
            if asked != self._rendered_for or not 0 <= now - self._rendered_at < KEPT_FOR:
                self._rendered = await self._render(now)
                self._rendered_at, self._rendered_for = now, asked
            return self._rendered

    async def _render(self, now: Instant) -> tuple[Html, str]:
        self.renderings += 1
        found, wall = standings(self._board, now), self._wall()
        shown = found[:MOST_MEMBERS]
        seen = Seen(
            board=self._board,
            now=now,
            wall=wall,
            standings=shown,
            left_out=len(found) - len(shown),
            alarms=self._alarms(),
            events=self._events.newest(SHOWN_EVENTS),
            places=self.places(),
            hour=await self._hour_section(shown, now, wall),
        )
        name = title(seen)
        return Html(
            tag("div", await live(seen), id="live", data_title=name, data_every=_pause(len(shown)))
        ), name

    async def _hour_section(self, shown: list[Standing], now: Instant, wall: datetime) -> Html:
        """The plot, drawn anew only when its data has changed."""
        wanted = (self._history.version, tuple(standing.entry for standing in shown))
        if wanted != self._hour_of:
            end = datetime.fromtimestamp(wall.timestamp() + SLOT - now % SLOT, UTC)
            self._hour, self._hour_of = await hour_section(self._history, shown, end), wanted
        return self._hour


def _pause(members: int) -> int:
    """Milliseconds between two questions of the script: a page of many members is a large one."""
    return 1000 if members <= 8 else 2000 if members <= 24 else 5000


def document(part: Html, name: str) -> Html:
    """The whole page."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", name),
        tag("link", rel="icon", href=ICON),
        tag("style", Html(STYLE)),
        tag("noscript", tag("meta", http_equiv="refresh", content=str(RELOAD))),
    )
    body = tag(
        "body",
        tag("a", "Skip to the nodes", href="#nodes", class_="skip"),
        PATTERNS,
        tag("p", id="lost", role="alert", hidden=True),
        part,
        tag("script", Html(SCRIPT)),
    )
    return Html(f"<!doctype html>{tag('html', head, body, lang='en')}")
