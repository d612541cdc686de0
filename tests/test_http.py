"""The HTTP surface over real sockets: methods, headers, versions, and that nobody can unsettle it."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse

from healthagent.board import Board
from healthagent.clock import boottime
from healthagent.server.answers import CHECKS, Answer, Answers
from healthagent.server.http import Surface
from tests.bed.boards import PRIMARY, START, board

DOCUMENTS = ("/patroni", "/cluster", "/history", "/status", "/lease")
PAGES = ("/metrics", "/peer")


@dataclass
class Reply:
    """One answer off the wire."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lasting(self) -> dict[str, str]:
        """The headers that do not tell the time."""
        return {name: value for name, value in self.headers.items() if name != "date"}


class Wire:
    """A client that sends exactly the bytes it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, method: str = "GET") -> Reply:
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            version, status, _ = first.split(" ", 2)
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
            size = 0 if method == "HEAD" else int(headers["content-length"])
            return Reply(version, int(status), headers, await self.reader.readexactly(size))

    async def rest(self) -> bytes:
        """All until the server hangs up."""
        async with asyncio.timeout(5):
            return await self.reader.read()


class Served:
    """A surface on a free port, with the board behind it."""

    def __init__(self, surface: Surface, port: int, made: Board) -> None:
        self.surface = surface
        self.port = port
        self.board = made
        self._clients: list[asyncio.StreamWriter] = []

    async def connect(self) -> Wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._clients.append(writer)
        return Wire(reader, writer)

    async def send(self, data: bytes, method: str = "GET") -> Reply:
        """Send these bytes on a new connection and read one answer."""
        wire = await self.connect()
        wire.send(data)
        return await wire.reply(method)

    async def ask(
        self, target: str, method: str = "GET", headers: str = "Host: pg1\r\n", body: bytes = b""
    ) -> Reply:
        return await self.send(
            f"{method} {target} HTTP/1.1\r\n{headers}\r\n".encode("latin-1") + body, method
        )

    async def close(self) -> None:
        for writer in self._clients:
            writer.close()
        await self.surface.close()


async def page(_request: BaseRequest) -> StreamResponse:
    return Response(body=b"a page\n", headers={"Content-Type": "text/plain; version=0.0.4"})


async def exchange(request: BaseRequest) -> StreamResponse:
    return Response(body=await request.read())


async def post(request: BaseRequest) -> Answer:
    return Answer(200, await request.read(), "text/plain")


@pytest.fixture
async def served(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Served]:
    """A healthy primary; whatever a client does, nothing is logged."""
    made = board(PRIMARY)
    surface = Surface(Answers(made), lambda: START, 100, asyncio.get_running_loop())
    surface.pages |= dict.fromkeys(PAGES, page)
    surface.exchanges["/peer"] = exchange
    surface.posts["/maintenance"] = post
    [port] = await surface.listen("127.0.0.1", 0)
    served = Served(surface, port, made)
    with caplog.at_level(logging.INFO):
        yield served
        await served.close()
    assert [record.getMessage() for record in caplog.records] == []


READABLE = (*CHECKS, *DOCUMENTS, *PAGES)


@pytest.mark.parametrize("path", READABLE)
async def test_head_and_options_are_get_without_a_body(served: Served, path: str) -> None:
    got = await served.ask(path)
    assert int(got.headers["content-length"]) == len(got.body) > 0
    wire = await served.connect()
    wire.send(f"HEAD {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    head = await wire.reply("HEAD")
    assert (head.status, head.lasting) == (got.status, {**got.lasting, "connection": "close"})
    assert await wire.rest() == b""
    wire = await served.connect()
    wire.send(f"OPTIONS {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    options = await wire.reply()
    assert (options.status, options.headers["content-length"], await wire.rest()) == (got.status, "0", b"")
    expected = "GET, HEAD, OPTIONS, POST" if path == "/peer" else "GET, HEAD, OPTIONS"
    assert options.headers["allow"] == expected
    assert options.headers.get("x-healthagent-reason") == got.headers.get("x-healthagent-reason")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", [*CHECKS, *DOCUMENTS, "/replica?lag=1mb"])
async def test_a_body_of_no_bytes_leads_to_aiohttp_and_to_the_same_answer(
    served: Served, path: str, method: str
) -> None:
    plain = await served.ask(path, method)
    unusual = await served.ask(path, method, "Host: pg1\r\nContent-Length: 0\r\n")
    assert (plain.version, plain.status, plain.body) == (unusual.version, unusual.status, unusual.body)
    assert plain.lasting == unusual.lasting


@pytest.mark.parametrize("path", [path for path in READABLE if path != "/"])
async def test_a_trailing_slash_changes_nothing(served: Served, path: str) -> None:
    with_slash, without = await served.ask(f"{path}/"), await served.ask(path)
    assert (with_slash.status, with_slash.lasting, with_slash.body) == (
        without.status,
        without.lasting,
        without.body,
    )


@pytest.mark.parametrize(
    "request_head",
    [
        pytest.param(b"OPTIONS /primary HTTP/1.0\r\n\r\n", id="option httpchk of HAProxy"),
        pytest.param(b"GET /primary HTTP/1.0\r\n\r\n", id="HTTP/1.0 without a header"),
        pytest.param(b"GET /primary HTTP/1.0\r\nHost: pg1\r\n\r\n", id="HTTP/1.0 with Host"),
        pytest.param(b"GET /primary HTTP/1.1\r\nconnection: close\r\n\r\n", id="HTTP/1.1 without Host"),
        pytest.param(b"GET /primary HTTP/1.1\r\nhost: pg1\r\nconnection: close\r\n\r\n", id="lower case"),
        pytest.param(b"GET http://pg1:8008/primary HTTP/1.1\r\n\r\n", id="the absolute form"),
        pytest.param(b"GET /primary?lag=1MB&x=%ff HTTP/1.1\r\n\r\n", id="a query that is not for it"),
        pytest.param(b"GET /primary#here HTTP/1.1\r\n\r\n", id="a fragment"),
        pytest.param(b"GET /primary HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", id="no 100 is sent"),
        pytest.param(
            b"GET /primary HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            id="an upgrade to HTTP/2 is declined",
        ),
        pytest.param(b"\r\nGET /primary HTTP/1.1\r\nHost: pg1\r\n\r\n", id="an empty line before"),
    ],
)
async def test_every_way_to_ask(served: Served, request_head: bytes) -> None:
    reply = await served.send(request_head)
    assert (reply.status, reply.headers["x-healthagent-reason"]) == (200, "primary")
    assert "location" not in reply.headers


@pytest.mark.parametrize(
    ("version", "header", "kept"),
    [
        pytest.param("1.1", "", True, id="HTTP/1.1"),
        pytest.param("1.1", "Connection: close\r\n", False, id="HTTP/1.1 asked to close"),
        pytest.param("1.0", "", False, id="HTTP/1.0"),
        pytest.param("1.0", "Connection: keep-alive\r\n", True, id="HTTP/1.0 asked to keep"),
    ],
)
async def test_keep_alive_is_honoured(served: Served, version: str, header: str, kept: bool) -> None:
    wire = await served.connect()
    ask = f"GET /primary HTTP/{version}\r\n{header}\r\n".encode()
    for _ in range(3 if kept else 1):
        wire.send(ask)
        reply = await wire.reply()
        assert reply.status == 200
        assert reply.version == f"HTTP/{version}"
        if version == "1.0" and kept:
            assert reply.headers["connection"] == "keep-alive"
    if not kept:
        assert await wire.rest() == b""


async def test_pipelined_questions_are_answered_in_order(served: Served) -> None:
    wire = await served.connect()
    host = b" HTTP/1.1\r\nHost: pg1\r\n\r\n"
    wire.send(b"".join(b"GET " + path + host for path in (b"/primary", b"/replica", b"/nosuch")))
    wire.send(b"HEAD /health" + host + b"GET /liveness" + host)
    assert [(await wire.reply()).status for _ in range(3)] == [200, 503, 404]
    assert (await wire.reply("HEAD")).status == 200
    assert (await wire.reply()).json["verdict"]["reason"] == "running"


@pytest.mark.parametrize("path", ["/primary", "/status"])
async def test_many_pipelined_questions_are_answered_at_the_pace_of_their_reader(
    served: Served, path: str
) -> None:
    wire = await served.connect()
    number = 600  # more than the buffers of both ends hold the answers of
    wire.send(f"GET {path} HTTP/1.1\r\nHost: pg1\r\n\r\n".encode() * number)
    assert [(await wire.reply()).status for _ in range(number)] == [200] * number


@pytest.mark.parametrize("cut", range(1, 50, 7))
async def test_a_question_in_two_pieces_is_one(served: Served, cut: int) -> None:
    question = b"GET /primary?lag=1 HTTP/1.1\r\nHost: pg1\r\nX: y\r\n\r\n"
    wire = await served.connect()
    for _ in range(2):
        wire.send(question[:cut])
        await wire.writer.drain()
        wire.send(question[cut:])
        assert (await wire.reply()).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/nosuch",
        "/Primary",
        "/primaryfoo",
        "/primary/x",
        "/primary//",
        "/ui/..;",
        "/%ff",
        "/a%00b",
        "//primary",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
async def test_an_unknown_path_is_404_with_all_paths(served: Served, target: str, method: str) -> None:
    reply = await served.ask(target, method)
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/json"
    if method in ("GET", "POST", "DELETE"):
        assert set(reply.json["paths"]) == {*READABLE, "/maintenance"}
        assert reply.json["error"].startswith("no such path: '")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", "/primary", "/status", "/metrics"])
async def test_other_methods_are_405_and_say_which(served: Served, path: str, method: str) -> None:
    reply = await served.ask(path, method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert reply.json == {"error": f"{path} takes GET, HEAD, OPTIONS"}


async def test_what_changes_state_takes_post_only(served: Served) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT"):
        reply = await served.ask("/maintenance", method)
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert (await served.ask("/maintenance", "OPTIONS")).headers["content-length"] == "0"
    assert (await served.ask("/peer", "PUT")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    reply = await served.ask("/maintenance", "POST", "Content-Length: 2\r\n", b"{}")
    assert (reply.status, reply.body) == (200, b"{}")
    reply = await served.ask("/peer/", "POST", "Content-Length: 2\r\n", b"{}")
    assert (reply.status, reply.body) == (200, b"{}")


async def test_the_query_is_decoded_once(served: Served) -> None:
    reply = await served.ask("/health?tag_x=a%2526b%253Dc")
    assert "'x'" in reply.json["verdict"]["detail"]
    for query, status in (("lag=1%2BMB", 400), ("lag=1+MB", 200), ("lag=%31MB", 200), ("lag=%2531MB", 400)):
        assert (await served.ask(f"/read-only?{query}")).status == status, query


async def test_a_refused_lag_is_400_with_a_sentence(served: Served) -> None:
    reply = await served.ask("/replica?lag=1MiB")
    assert reply.status == 400
    assert reply.json["error"].startswith("lag: unknown unit 'MiB' (units are case-sensitive), want bytes")
    assert "x-healthagent-reason" not in reply.headers
    head = await served.ask("/replica?lag=1MiB", "HEAD")
    assert (head.status, head.lasting) == (400, reply.lasting)
    options = await served.ask("/replica?lag=1MiB", "OPTIONS")
    assert (options.status, options.headers["content-length"]) == (400, "0")


@pytest.mark.parametrize(
    ("request_head", "status", "said"),
    [
        pytest.param(b"GET /primary HTTP/2.0\r\n\r\n", 505, "only HTTP/1.0 and HTTP/1.1", id="HTTP/2.0"),
        pytest.param(b"GET /status HTTP/2.0\r\n\r\n", 505, "only HTTP/1.0 and HTTP/1.1", id="no check"),
        pytest.param(b"GET /nosuch HTTP/2.0\r\n\r\n", 505, "only HTTP/1.0 and HTTP/1.1", id="no path"),
        pytest.param(b"HEAD /primary HTTP/2.0\r\n\r\n", 505, "", id="HEAD"),
        pytest.param(b"GET /primary\r\n\r\n", 400, "the request line says no version", id="no version"),
        pytest.param(
            b"GET /primary HTTP/0.9\r\n\r\n", 400, "the request line says no version", id="HTTP/0.9"
        ),
    ],
)
async def test_other_versions_of_http_are_refused_in_one_that_is_spoken(
    served: Served, request_head: bytes, status: int, said: str
) -> None:
    wire = await served.connect()
    wire.send(request_head)
    reply = await wire.reply(request_head.split()[0].decode())
    assert (reply.version, reply.status) == ("HTTP/1.1", status)
    assert said in reply.body.decode()
    assert "x-healthagent-reason" not in reply.headers
    assert await wire.rest() == b""


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="the preface of HTTP/2"),
        pytest.param(bytes.fromhex("1603010200010001fc0303") + bytes(range(256)), id="a TLS hello"),
        pytest.param(b"\x00\x00\x00\x1c\x00\x03\x00\x00user\x00u\x00\x00", id="a PostgreSQL startup packet"),
        pytest.param(b"\xff\xfe\xfd\x00\r\n\r\n", id="binary garbage"),
        pytest.param(b"GET * HTTP/1.1\r\nHost: pg1\r\n\r\n", id="no path"),
        pytest.param(b"GET /\xff HTTP/1.1\r\nHost: pg1\r\n\r\n", id="a raw byte in the path"),
        pytest.param(b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", id="a long request line"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(
            b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(1000)) + b"\r\n",
            id="many headers",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", id="no length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", id="two lengths"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nbad header\r\n\r\n", id="a header without a colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", id="a folded header"),
    ],
)
async def test_what_is_no_request_is_400_and_the_end(served: Served, sent: bytes) -> None:
    wire = await served.connect()
    wire.send(sent)
    rest = await wire.rest()
    assert rest.startswith(b"HTTP/1.")
    assert rest.split(b" ", 2)[1] == b"400"
    assert (await served.ask("/primary")).status == 200


async def test_a_long_line_that_never_ends_is_cut_off(served: Served) -> None:
    wire = await served.connect()
    wire.send(b"GET /" + b"x" * 1_000_000)
    try:
        rest = await wire.rest()
    except ConnectionResetError:  # what we had not yet sent is lost to us, and the answer with it
        return
    assert rest.split(b" ", 2)[1] == b"400"


async def test_a_bug_of_ours_is_500_and_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_request: BaseRequest) -> StreamResponse:
        raise AssertionError("a bug")

    served.surface.pages["/metrics"] = broken
    assert (await served.ask("/metrics")).status == 500
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    caplog.clear()


async def test_a_client_that_resets_after_the_status_line_is_normal(served: Served) -> None:
    for _ in range(20):
        wire = await served.connect()
        raw = wire.writer.get_extra_info("socket")
        wire.send(b"OPTIONS /primary HTTP/1.0\r\n\r\n")
        await wire.reader.readline()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        wire.writer.transport.abort()
    assert (await served.ask("/primary")).status == 200
    assert served.surface.checks["/primary", 200] == 21


@pytest.mark.parametrize("path", ["/primary", "/status", "/metrics"])
async def test_a_half_closed_connection_is_answered_and_ended(served: Served, path: str) -> None:
    wire = await served.connect()
    wire.send(f"GET {path} HTTP/1.1\r\nHost: pg1\r\n\r\n".encode())
    wire.writer.write_eof()
    assert (await wire.reply()).status == 200
    assert await wire.rest() == b""


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HT", b"GET /primary HTTP/1.1\r\nExpect: x"])
async def test_who_hangs_up_before_it_has_asked_is_let_go(served: Served, sent: bytes) -> None:
    wire = await served.connect()
    wire.send(sent)
    wire.writer.write_eof()
    assert await wire.rest() == b""
    kept = await served.connect()
    kept.send(b"GET /metrics HTTP/1.1\r\nHost: pg1\r\n\r\n")
    assert (await kept.reply()).status == 200
    kept.writer.write_eof()
    assert await kept.rest() == b""


async def test_checks_are_counted_by_known_path(served: Served) -> None:
    for target, method in (("/", "GET"), ("/primary/", "HEAD"), ("/replica", "OPTIONS"), ("/history", "GET")):
        await served.ask(target, method)
    for target, method in (("/a", "GET"), ("/b?c", "POST"), ("/metrics", "GET"), ("/metrics", "PUT")):
        await served.ask(target, method)
    assert served.surface.checks == {
        ("/", 200): 1,
        ("/primary", 200): 1,
        ("/replica", 503): 1,
        ("/history", 200): 1,
        ("other", 404): 2,
        ("/metrics", 200): 1,
        ("/metrics", 405): 1,
    }


async def test_haproxy_says_how_many_sessions_it_holds(served: Served) -> None:
    state = (
        "X-Haproxy-Server-State: UP 1/3; address=127.0.0.1; port=21999; name=b15/s; node=vm; weight=1/1; "
        "scur=13/22; qcur=0\r\n"
    )
    await served.ask("/primary", "HEAD", state)
    assert served.surface.haproxy_states.sessions(START) == {"b15/s": 13}


@pytest.mark.parametrize("path", ["/primary", "/status"])  # each lane has its own way to it
async def test_haproxy_says_what_it_holds_in_another_backend(served: Served, path: str) -> None:
    state = "X-Haproxy-Server-State: UP 1/3; name=pg_probe/s; node=vm; scur=0/0\r\n"
    await served.ask(path, "OPTIONS", state + "X-Healthagent-Sessions: pg_primary/s=3 pg_primary/t=4\r\n")
    assert served.surface.haproxy_states.sessions(START) == {"pg_probe/s": 0, "pg_primary/s": 3}


async def test_a_unix_socket_answers_and_replaces_the_one_left_behind(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "control"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    await served.surface.listen_unix(path)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET /primary HTTP/1.0\r\n\r\n")
    assert (await reader.readline()) == b"HTTP/1.0 200 OK\r\n"
    writer.close()


async def test_a_file_in_the_place_of_the_unix_socket_is_left_alone(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="precious"):
        await served.surface.listen_unix(path)
    assert path.read_text() == "data"


async def test_close_ends_listeners_and_connections(served: Served) -> None:
    wire = await served.connect()
    wire.send(b"GET /primary HTTP/1.1\r\n\r\n")
    await wire.reply()
    began = boottime()
    await served.surface.close()
    assert await wire.rest() == b""
    assert boottime() - began < 2
    assert not len(served.surface.crowd)
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
