"""The status page: what it says, that it says it safely, and that it can be read."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from healthagent.board import Board
from healthagent.core.model import Reason, Role
from healthagent.core.peer import Alarm, Peer, Sight
from healthagent.core.view import Maintenance
from healthagent.events import Events, Kind
from healthagent.history import SLOT, SLOTS, History, Shade
from healthagent.server.answers import Answers
from healthagent.server.http import Surface
from healthagent.server.page import HEADERS, SCRIPT, STYLE, StatusPage
from healthagent.server.page.markup import Html, join, tag, text
from healthagent.server.page.plot import FEWER_RUNS, MOST_RUNS, Hour, hour_of, lag_line, top_of
from healthagent.server.page.words import MEANINGS, SHADES, ago, lasting, listed, size, summary
from healthagent.server.places import Place
from healthagent.standing import SILENT, UNASKED, Standing, standings
from tests.bed.boards import PRIMARY, START, Clock, board, replica, says

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
VOID = {"meta", "link"}


class Outline(HTMLParser):
    """The elements of a page; a tag that is not closed, or closed wrongly, is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


class Desk:
    """A page over a board, on a clock of the test."""

    def __init__(self, made: Board, events: Events | None = None) -> None:
        self.clock = Clock()
        self.board = made
        self.events = events or Events(wall=lambda: NOON)
        self.history = History(lambda now: standings(made, now), START)
        self.alarms: list[str] = []
        self.page = StatusPage(
            made, self.events, self.history, self.clock, lambda: self.alarms, wall=lambda: NOON
        )

    async def shown(self, query: str = "") -> str:
        """The answer to GET /ui, over a real socket."""
        return (await self.asked(query))[1]

    async def asked(self, query: str = "", method: str = "GET") -> tuple[Mapping[str, str], str]:
        surface = Surface(Answers(self.board), self.clock, 100, asyncio.get_running_loop())
        surface.pages["/ui"] = self.page
        [port] = await surface.listen("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} /ui{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await surface.close()
        lines = head.decode().split("\r\n")
        assert lines[0] == "HTTP/1.1 200 OK"
        return {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }, body.decode()


def cluster() -> Board:
    """pg1 serves, pg2 follows, pg3 is silent."""
    made = board(PRIMARY, peers=(Peer("pg2"), Peer("pg3")))
    sees = (Sight("pg1", True, Role.PRIMARY, 3, True), Sight("pg3", False, None, None, False))
    told = replace(says("pg2", replica(behind=2048)), replica_ok=True, replica_reason="replica", sees=sees)
    made.hear("pg2", replace(told, address="10.0.0.2:5432"), START)
    for entry in ("pg2", "pg3"):
        made.end_call(entry, START, START)
    return made


@pytest.fixture
def desk() -> Desk:
    made = Desk(cluster())
    made.events.add(Kind.PRIMARY, START - 60, ok=True, reason="primary", detail="primary on timeline 3")
    for slot in range(3):
        made.history.note(standings(made.board, START), START + slot * SLOT)
    return made


async def test_it_says_who_may_write_and_read_and_why(desk: Desk) -> None:
    page = Outline(await desk.shown())
    for words in (
        "Writes go to pg1. Reads go to pg2. Not heard: pg3.",
        "As pg1 sees it at 12:00:00 UTC. 2 of 3 members heard.",
        "Takes writes",
        "primary on timeline 3",
        "it follows the primary",
        "its agent is not heard",
        "2 kB",
        "1 of 2, not pg3",
        "timeline 3, just now",
        "not in this mode",
    ):
        assert words in page.words, words


async def test_maintenance_alarms_and_a_conflict_stand_first(desk: Desk) -> None:
    desk.alarms = ["peer pg9: has another list of members"]
    desk.board.maintain(Maintenance(START + 600), START)
    told = says("pg3", replace(PRIMARY, timeline=4))
    desk.board.hear("pg3", told, START)
    words = Outline(await desk.shown()).words
    assert "peer pg9: has another list of members" in words
    assert "Maintenance: pg1 is out, for 10 min more." in words
    assert "2 PostgreSQL servers are primary: pg1 on timeline 3 and pg3 on timeline 4." in words
    assert "Conflict of pg1 with pg3 on timeline 4: " in words
    assert words.index("What is wrong") < words.index("Nodes")


async def test_what_anybody_says_is_text(desk: Desk) -> None:
    """A peer's name, reason, detail, address, sights; alarms; events; the cluster's name and URLs."""
    made = board(PRIMARY, name=HOSTILE, cluster=HOSTILE, peers=(Peer(HOSTILE + "2"), Peer(HOSTILE + "3")))
    told = replace(
        says(HOSTILE + "2", replica()),
        replica_ok=False,
        replica_reason=HOSTILE,
        detail=HOSTILE,
        address=HOSTILE,
        sees=(Sight(HOSTILE, True, None, None, False), Sight(HOSTILE + "3", False, None, None, False)),
    )
    made.hear(HOSTILE + "2", told, START)
    made.hear(HOSTILE + "3", replace(told, cluster=HOSTILE + "x", name=HOSTILE + "3"), START)
    hostile = Desk(made)
    hostile.alarms = [HOSTILE]
    hostile.page.places = lambda: {
        HOSTILE + "2": Place("javascript:alert(1)"),
        HOSTILE + "3": Place('http://a"b'),
    }
    hostile.events.add(HOSTILE, START, reason=HOSTILE, detail=HOSTILE, who=HOSTILE, why=HOSTILE)
    hostile.history.note(standings(made, START), START)
    shown = await hostile.shown()
    page = Outline(shown)
    assert len(page.all("script")) == 1
    assert "<script>alert" not in shown
    assert "javascript:" not in shown
    assert not set("\u202e\x1b") & set(shown)
    assert page.words.count("<script>alert(1)</script>") > 10
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


async def test_the_headers_let_the_browser_run_our_script_only(desk: Desk) -> None:
    headers, shown = await desk.asked()
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items()
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert f"<style>{STYLE}</style>" in shown
    assert f"<script>{SCRIPT}</script>" in shown
    assert not re.search(r'(?:src|href|action)="(?!/|#|data:image/svg|http://10)', shown)


async def test_head_has_no_body_and_the_part_is_the_live_one(desk: Desk) -> None:
    headers, body = await desk.asked(method="HEAD")
    assert (body, int(headers["content-length"]) > 1000) == ("", True)
    part = await desk.shown("?part=live")
    assert part.startswith('<div id="live"')
    assert part in await desk.shown()
    assert "<script" not in part


async def test_a_second_is_rendered_once_and_another_verdict_at_once(desk: Desk) -> None:
    await desk.shown()
    desk.clock.now += 0.99
    desk.board.observe(replace(PRIMARY, asked_at=desk.clock.now), desk.clock.now)
    await asyncio.gather(desk.shown(), desk.shown("?part=live"))
    assert desk.page.renderings == 1
    desk.board.maintain(Maintenance(None), desk.clock.now)
    assert "Taken out" in await desk.shown()
    assert desk.page.renderings == 2
    desk.clock.now += 1.0
    await desk.shown()
    assert desk.page.renderings == 3


async def test_checks_are_answered_between_two_members() -> None:
    """The page of many members lets the loop go on; one rendering serves all who ask meanwhile."""
    names = [f"pg{number:02}" for number in range(64)]
    made = Desk(board(PRIMARY, name="pg99", peers=tuple(Peer(name) for name in names)))
    turns, done = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await asyncio.gather(made.page._current(), made.page._current())
    done.set()
    await task
    assert turns > 3 * 64
    assert made.page.renderings == 1


async def test_members_beyond_the_limit_are_counted_only() -> None:
    made = Desk(board(PRIMARY, peers=tuple(Peer(f"pg{number}") for number in range(2, 72))))
    assert "And 6 more, see /status." in await made.shown()


async def test_headings_landmarks_tables_and_pictures_have_names(desk: Desk) -> None:
    page = Outline(await desk.shown())
    headings = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(headings))
    assert (len(page.all("main")), len(page.all("header"))) == (1, 1)
    assert page.all("html")[0]["lang"] == "en"
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for section in page.all("section"):
        assert section["aria-labelledby"] in identifiers
    assert len(page.all("table")) == len(page.all("caption")) == 2
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
    for picture in page.all("svg"):
        assert picture.get("aria-hidden") == "true" or picture["aria-label"]
    [status] = [attributes for _, attributes in page.elements if attributes.get("role") == "status"]
    assert (status["id"], status["aria-live"]) == ("summary", "polite")


async def test_nothing_that_is_announced_ticks(desk: Desk) -> None:
    found = re.search('id="summary".*?</span>', await desk.shown())
    desk.clock.now += 1.7
    again = re.search('id="summary".*?</span>', await desk.shown())
    assert found is not None
    assert again is not None
    assert found[0] == again[0]


STATES = [one for one in Shade if one is not Shade.NOTHING]


def test_every_reason_and_shape_has_words_and_a_style() -> None:
    words = {*Reason, SILENT, UNASKED, *Alarm} - {Alarm.SELF, Alarm.DUPLICATE}
    assert set(MEANINGS) == {str(word) for word in words}
    assert set(SHADES) == set(Shade)
    for shade in STATES:
        assert f".is-{shade.name.lower().replace('_', '-')}" in STYLE


def colours(theme: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", theme))


LIGHT, DARK = (colours(block) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL))


def contrast(one: str, other: str) -> float:
    """WCAG 2: 1 is none, 21 black on white."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "back", "least"),
    [
        *((ink, back, 4.5) for ink in ("ink", "dim", "good", "bad", "warn") for back in ("card", "back")),
        *(("ink", back, 4.5) for back in ("good-back", "bad-back", "warn-back")),
        *((shape, "card", 3.0) for shape in ("good", "read", "bad", "warn", "quiet", "ink")),
    ],
)
def test_contrast(theme: Mapping[str, str], ink: str, back: str, least: float) -> None:
    assert contrast(theme[ink], theme[back]) >= least


def test_text_is_escaped_unless_it_was_made_here() -> None:
    assert tag("p", "<b>", tag("b", "&"), None, class_='"') == '<p class="&quot;">&lt;b&gt;<b>&amp;</b></p>'
    assert join("a", Html("<i>"), 1) == "a<i>1"
    assert text("\x00\u202ea") == "\ufffd\ufffda"
    assert tag("a", hidden=True, title=None, aria_label="x", open=False) == '<a hidden aria-label="x"></a>'
    assert tag("rect", x=1) == '<rect x="1"/>'
    assert tag("meta", name="n") == '<meta name="n">'


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (1.99, "just now"),
        (2, "2 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7199, "119 min ago"),
        (7200, "2 h ago"),
        (172800, "2 d ago"),
    ],
)
def test_ages(seconds: float, words: str) -> None:
    assert ago(seconds) == words
    assert seconds < 2 or lasting(seconds) == words.removesuffix(" ago")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 kB"),
        (1536, "1.5 kB"),
        (1 << 20, "1 MB"),
        (1020 << 10, "1020 kB"),
        (1 << 40, "1 TB"),
        (1 << 50, "1024 TB"),
    ],
)
def test_sizes(number: int, words: str) -> None:
    assert size(number) == words


def test_lists() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert listed([str(number) for number in range(9)]) == "0, 1, 2, 3, 4, 5 and 3 more"


def one(
    name: str, role: Role | None, *, writes: bool = False, reads: bool = False, heard: bool = True
) -> Standing:
    return Standing(name, name, heard=heard, role=role, timeline=1, writes=writes, reads=reads)


@pytest.mark.parametrize(
    ("found", "level", "said"),
    [
        pytest.param(
            [one("a", Role.PRIMARY, writes=True), one("b", Role.REPLICA, reads=True)],
            "good",
            "Writes go to a. Reads go to b.",
            id="well",
        ),
        pytest.param([one("a", Role.PRIMARY, writes=True)], "good", "Writes go to a.", id="alone"),
        pytest.param(
            [one("a", Role.PRIMARY, writes=True), one("b", None, heard=False)],
            "warn",
            "Writes go to a. No node takes reads. Not heard: b.",
            id="one silent",
        ),
        pytest.param(
            [one("a", Role.REPLICA, reads=True), one("b", None, heard=False)],
            "bad",
            "No node takes writes. No PostgreSQL in sight is a primary. Reads go to a. Not heard: b.",
            id="no primary",
        ),
        pytest.param(
            [one("a", Role.PRIMARY), one("b", Role.PRIMARY)],
            "bad",
            "No node takes writes. 2 PostgreSQL servers are primary: a on timeline 1 and b on timeline 1. "
            "No node takes reads.",
            id="diverged",
        ),
        pytest.param(
            [one("a", Role.PRIMARY, writes=True), one("b", Role.PRIMARY, writes=True)],
            "bad",
            "a and b take writes at the same time. 2 PostgreSQL servers are primary: a on timeline 1 and "
            "b on timeline 1. No node takes reads.",
            id="both serve",
        ),
    ],
)
def test_the_summary(found: list[Standing], level: str, said: str) -> None:
    assert summary(found) == (level, said)


@pytest.mark.parametrize(
    ("most", "top"), [(0, 64), (64, 64), (64.1, 96), (96, 96), (97, 128), (129, 192), (8315, 12288)]
)
def test_the_scale_of_lags_is_a_round_number_just_above_the_largest(most: float, top: float) -> None:
    assert top_of([Hour([], 1, [None, most * 1024])]) == top * 1024


@pytest.mark.parametrize(("members", "most"), [(8, MOST_RUNS), (9, FEWER_RUNS)])
def test_what_is_drawn_of_a_member_is_bounded(members: int, most: int) -> None:
    history = History(lambda _now: (), START)
    for slot in range(SLOTS):
        flapping = one("a", Role.PRIMARY, writes=slot % 2 == 0)
        history.note([replace(flapping, timeline=slot + 1, lag_bytes=slot)], START + slot * SLOT)
    hour = hour_of(history, "a", members)
    assert len(hour.runs) <= most
    assert len(lag_line("a", hour.lags, top_of([hour]))) < 6000


@pytest.mark.parametrize(
    ("slots", "drawn"), [(1, 120), (120, 120), (121, 360), (360, 360), (361, 720), (10_000, 720)]
)
def test_of_a_young_history_less_than_an_hour_is_drawn(slots: int, drawn: int) -> None:
    history = History(lambda _now: (), START)
    history.note([], START + (slots - 1) * SLOT)
    assert hour_of(history, "a", 1).slots == drawn


def test_a_lag_line_breaks_where_nothing_is_known() -> None:
    drawn = lag_line("a", [0, 0, None, 65536], 65536)
    assert 'd="M0 98.0H1H2M3 4.0H4"' in drawn
    assert 'aria-label="a, lag: at most 64 kB"' in drawn
    assert "<path" not in lag_line("a", [None, None], 65536)
