"""Who may change state, with which words, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web_request import BaseRequest

from healthagent.board import Board
from healthagent.control import MAX_BODY, Control, _is_loopback
from healthagent.core.model import Role
from healthagent.core.view import Maintenance
from healthagent.events import Events
from healthagent.server.answers import Answers
from healthagent.server.http import Surface
from tests.bed.boards import PRIMARY, START, SYSTEM, board

TOKEN = "sixteen-bytes-or-more"
JSON = "Content-Type: application/json\r\n"


class Desk:
    """A surface with control, on loopback and on a Unix socket."""

    def __init__(self, made: Board, events: Events, control: Control, port: int, path: Path) -> None:
        self.control = control
        self.board = made
        self.events = events
        self.port = port
        self.path = path

    async def post(
        self, path: str, body: object, headers: str = JSON, *, unix: bool = False
    ) -> tuple[int, Any]:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}"
        head += f"Content-Length: {len(payload)}\r\n\r\n"
        if unix:
            reader, writer = await asyncio.open_unix_connection(str(self.path))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head.encode("latin-1") + payload)
        async with asyncio.timeout(5):
            got = await reader.read()
        writer.close()
        return int(got.split(b" ", 2)[1]), json.loads(got.partition(b"\r\n\r\n")[2])


class FromElsewhere(Control):
    """As if every caller came over the network: a test has no other machine."""

    def _trusted(self, request: BaseRequest) -> bool:
        return self._has_token(request)


async def saved() -> str | None:
    """As a disk that is well."""
    return None


@pytest.fixture(params=[Control])
async def desk(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    made = board(PRIMARY)
    surface = Surface(Answers(made), lambda: START, 100, asyncio.get_running_loop())
    events = Events()
    control = request.param(made, lambda: START, TOKEN, events)
    control.why_unsaved = saved
    surface.posts |= {"/maintenance": control.maintenance, "/override": control.override}
    [port] = await surface.listen("127.0.0.1", 0)
    await surface.listen_unix(tmp_path / "control")
    yield Desk(made, events, control, port, tmp_path / "control")
    await surface.close()


async def test_maintenance_goes_on_and_off(desk: Desk) -> None:
    assert await desk.post("/maintenance", {"on": True}) == (200, {"on": True, "seconds": None})
    assert desk.board.memory.maintenance == Maintenance(None)
    assert await desk.post("/maintenance", {"on": True, "seconds": 60}) == (
        200,
        {"on": True, "seconds": 60.0},
    )
    assert desk.board.memory.maintenance == Maintenance(START + 60)
    assert desk.board.primary(START + 59).reason == "maintenance"
    assert await desk.post("/maintenance", {"on": False}, unix=True) == (200, {"on": False, "seconds": None})
    assert desk.board.memory.maintenance is None
    assert [(event.kind, event.reason, event.detail, event.who) for event in desk.events.newest(9)] == [
        ("maintenance", "on", "until somebody ends it", "127.0.0.1"),
        ("maintenance", "on", "for 60 s", "127.0.0.1"),
        ("maintenance", "off", "", "the control socket"),
    ]


async def test_override_says_what_it_cleared(desk: Desk) -> None:
    assert await desk.post("/override", {"clear": True}) == (200, {"cleared": []})
    desk.board.memory = replace(desk.board.memory, high_water={SYSTEM: 4})
    assert desk.board.primary(START).reason == "stale_timeline"
    assert await desk.post("/override", {"clear": True}) == (200, {"cleared": ["stale_timeline"]})
    assert [(event.reason, event.detail) for event in desk.events.newest(9)] == [
        ("clear", "there was nothing to clear"),
        ("clear", "cleared stale_timeline"),
    ]
    assert desk.board.primary(START).reason == "primary"


async def test_a_verdict_is_forced_and_left_to_the_rules_again(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    off = {"primary": "off", "seconds": 60, "who": "alice", "why": "a\nlong\x1b[31m story"}
    assert await desk.post("/override", off) == (200, {"primary": "off", "seconds": 60.0})
    said = "alice (a long [31m story) took writes away from this node, for another 60 s"
    assert desk.board.primary(START).detail == said
    assert await desk.post("/override", {"end": True}) == (200, {"ended": True})
    assert desk.board.primary(START).reason == "primary"
    assert await desk.post("/override", {"end": True}) == (200, {"ended": False})
    desk.board.memory = replace(desk.board.memory, high_water={SYSTEM: 4})
    on = {"primary": "on", "seconds": 3600, "why": "fire"}
    assert await desk.post("/override", on, unix=True) == (200, {"primary": "on", "seconds": 3600.0})
    assert desk.board.primary(START + 3599).reason != "primary"
    assert desk.board.memory.override is not None
    assert [(event.reason, event.who, event.why) for event in desk.events.newest(9)] == [
        ("primary off", "alice at 127.0.0.1", "a long [31m story"),
        ("end", "127.0.0.1", None),
        ("end", "127.0.0.1", None),
        ("primary on", "the control socket", "fire"),
    ]
    assert "override primary on by the control socket: for 3600 s (fire)" in caplog.text


ONE = "want exactly one of clear, primary and end"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        pytest.param({}, 400, ONE, id="nothing"),
        pytest.param({"clear": False}, 400, ONE, id="nothing, in more words"),
        pytest.param({"clear": True, "end": True}, 400, ONE, id="clear and end"),
        pytest.param({"clear": True, "primary": "off", "seconds": 60}, 400, ONE, id="clear and off"),
        pytest.param({"end": True, "primary": "off", "seconds": 60}, 400, ONE, id="end and off"),
        pytest.param({"primary": "on", "seconds": 3601, "why": "x"}, 400, "at most 3600", id="on: too long"),
        pytest.param({"primary": "on", "why": "x"}, 400, "at most 3600", id="on: without an end"),
        pytest.param({"primary": "on", "seconds": 60}, 400, "why: ", id="on: without a reason"),
        pytest.param({"primary": "on", "seconds": 60, "why": " \n"}, 400, "why: ", id="on: an empty reason"),
        pytest.param({"primary": "off"}, 400, "seconds: ", id="off: without an end"),
        pytest.param({"primary": "yes", "seconds": 60}, 400, "body: ", id="neither on nor off"),
        pytest.param({"primary": "off", "seconds": 60, "who": "x" * 201}, 400, "body: ", id="a long name"),
    ],
)
async def test_an_override_that_is_not_taken(desk: Desk, body: object, status: int, said: str) -> None:
    got, answer = await desk.post("/override", body)
    assert got == status
    assert said in answer["error"]
    assert desk.board.memory.override is None
    assert desk.events.newest(9) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/maintenance", {"on": True}),
        ("/override", {"clear": True}),
        ("/override", {"end": True}),
        ("/override", {"primary": "off", "seconds": 60}),
    ],
)
async def test_what_is_not_on_disk_is_said(desk: Desk, path: str, body: object) -> None:
    async def not_saved() -> str | None:
        return "the disk is full"

    desk.control.why_unsaved = not_saved
    status, said = await desk.post(path, body)
    assert (status, said["not_saved"]) == (200, "in force, but a restart would forget it: the disk is full")
    desk.control.why_unsaved = saved
    status, said = await desk.post(path, body)
    assert (status, "not_saved" in said) == (200, False)


async def test_without_a_state_dir_nothing_is_on_disk() -> None:
    assert await Control(board(PRIMARY), lambda: START, None, Events()).why_unsaved() == "state_dir is null"


async def test_a_replica_is_not_forced_on(desk: Desk) -> None:
    desk.board.observe(replace(PRIMARY, role=Role.REPLICA), START)
    got, answer = await desk.post("/override", {"primary": "on", "seconds": 60, "why": "x"})
    assert (got, answer["error"]) == (409, "PostgreSQL is no primary here")
    assert desk.board.memory.override is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half of it"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param({}, id="without on"),
        pytest.param({"on": "yes"}, id="a word for a flag"),
        pytest.param({"on": True, "seconds": 0}, id="no time at all"),
        pytest.param({"on": True, "seconds": -1}, id="negative"),
        pytest.param({"on": True, "seconds": 1e9}, id="more than a year"),
        pytest.param({"on": True, "minutes": 1}, id="an unknown key"),
        pytest.param([True], id="a list"),
    ],
)
async def test_what_cannot_be_understood_changes_nothing(desk: Desk, body: object) -> None:
    status, said = await desk.post("/maintenance", body)
    assert status == 400
    assert said["error"].startswith("body: ")
    assert desk.board.memory.maintenance is None


async def test_a_large_body_is_refused(desk: Desk) -> None:
    fits = b'{"on": true' + b" " * (MAX_BODY - 12) + b"}"
    assert len(fits) == MAX_BODY
    assert (await desk.post("/maintenance", fits))[0] == 200
    status, said = await desk.post("/maintenance", fits + b" ")
    assert (status, said) == (413, {"error": "body: at most 4096 bytes"})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(JSON, 200, id="JSON"),
        pytest.param("Content-Type: application/json; charset=utf-8\r\n", 200, id="JSON with its charset"),
        pytest.param("", 415, id="no type"),
        pytest.param("Content-Type: text/plain\r\n", 415, id="what a form of a web page can send"),
        pytest.param(
            JSON + "Origin: http://evil.example\r\n", 403, id="a web page in this machine's browser"
        ),
        pytest.param(JSON + "Origin: null\r\n", 403, id="a page without an origin"),
        pytest.param(JSON + "X-Forwarded-For: 10.0.0.9\r\n", 403, id="through a proxy on this machine"),
        pytest.param(JSON + "Forwarded: for=10.0.0.9\r\n", 403, id="through another proxy"),
        pytest.param(JSON + f"Origin: null\r\nAuthorization: Bearer {TOKEN}\r\n", 200, id="with the token"),
    ],
)
async def test_who_may_change_state_from_loopback(desk: Desk, headers: str, status: int) -> None:
    assert (await desk.post("/maintenance", {"on": True}, headers))[0] == status
    assert (desk.board.memory.maintenance is not None) == (status == 200)


@pytest.mark.parametrize("desk", [FromElsewhere], indirect=True)
@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        pytest.param(f"Bearer {TOKEN}", 200, id="the token"),
        pytest.param(f"bearer {TOKEN}", 403, id="another scheme"),
        pytest.param("Bearer ", 403, id="an empty token"),
        pytest.param(f"Bearer {TOKEN}x", 403, id="a longer one"),
        pytest.param("Bearer \xff\xfe", 403, id="bytes that are no text"),
        pytest.param("", 403, id="none"),
    ],
)
async def test_who_may_change_state_from_elsewhere(desk: Desk, authorization: str, status: int) -> None:
    got, said = await desk.post("/maintenance", {"on": True}, f"{JSON}Authorization: {authorization}\r\n")
    assert got == status
    if status == 403:
        assert said["error"].startswith("state is changed from loopback")


async def test_a_caller_that_hangs_up_amid_its_body_changes_nothing(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", desk.port)
    writer.write(
        b"POST /maintenance HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n" + JSON.encode() + b'\r\n{"on": '
    )
    await writer.drain()
    assert (await desk.post("/override", {"clear": True}))[0] == 200
    writer.transport.abort()
    assert (await desk.post("/override", {"clear": True}))[0] == 200
    assert desk.board.memory.maintenance is None
    assert [record.name for record in caplog.records if record.name != "healthagent.control"] == []


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        pytest.param("127.0.0.1", True),
        pytest.param("127.8.8.8", True),
        pytest.param("::1", True),
        pytest.param("::ffff:127.0.0.1", True, id="mapped by a socket for both families"),
        pytest.param("::ffff:10.0.0.1", False),
        pytest.param("fe80::1%eth0", False, id="with its zone"),
        pytest.param("10.0.0.1", False),
    ],
)
def test_what_loopback_is(address: str, is_loopback: bool) -> None:
    assert _is_loopback(address) == is_loopback
