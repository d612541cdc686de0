"""The PCP client against recorded bytes of pgpool 4.3.5 and against broken ones."""

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthagent.core.model import Role
from healthagent.pgpool import pcp
from healthagent.pgpool.model import Backend, Kind, LiveInfo, Status
from healthagent.pgpool.pcp import Endpoint, PcpError, PcpRefused, connect
from tests.bed.pcp_server import LOGIN, frame, pcp_server

# As pgpool 4.3.5 sent them.
COUNT = b"l\0\0\0\x16CommandComplete\x002\0"
HEALTH = frame(
    "h", "CommandComplete", "0", "127.0.0.1", "25301", "waiting", "primary", "2026-11-21 22:41:38", "193",
    "193", "0", "0", "0", "0.000000", "0", "147", "2", "6.476684", "2026-11-21 22:48:03",
    "2026-11-21 22:48:03", "", "",
)  # fmt: skip
NODE_INFO_43 = ["127.0.0.1", "25302", "1", "0", "up", "-nan", "3", "standby", "168", "", "", "1795300898"]
NODE_INFO_44 = [*NODE_INFO_43[:8], "1", "2500000", *NODE_INFO_43[9:]]  # the layout of the 4.4 source
ONE = frame("i", "ArraySize", "1")
DONE = frame("i", "CommandComplete")
DISALLOWED = frame(
    "E", "SERROR", "CXX000",
    "Mdegenerate backend request for node_id: 1 from pid [6224] is canceled "
    "because failover is disallowed on the node",
    "Fpool_internal_comms.c", "L135", "",
)  # fmt: skip
WRONG_PASSWORD = frame(
    "E", "SFATAL", "CXX000", 'Mauthentication failed for user "pcp"',
    "Dusername and/or password does not match", "Fpcp_worker.c", "L517", "",
)  # fmt: skip


async def test_login_answers_the_challenge_as_pgpool_computes_it() -> None:
    async with pcp_server({"L": COUNT}) as (endpoint, requests), connect(endpoint, 5.0) as connection:
        assert await connection.node_count() == 2
    # md5(md5(md5("secret") + "pcp") + salt), computed with pg_md5 and md5sum
    assert requests[:3] == [b"M", b"Rpcp\0" + b"8d7f191a9cbb72955eab8dc3baf8a576" + b"\0", b"L"]


async def test_backend_is_read_from_the_health_statistics() -> None:
    async with pcp_server({"H": HEALTH}) as (endpoint, _), connect(endpoint, 5.0) as connection:
        assert await connection.backend(0) == Backend(0, "127.0.0.1", 25301, Status.WAITING, is_primary=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(NODE_INFO_43, LiveInfo(True, Role.REPLICA, 168.0), id="pgpool 4.3: 12, bytes"),
        pytest.param(NODE_INFO_44, LiveInfo(True, Role.REPLICA, 2.5), id="pgpool 4.4: 13, microseconds"),
        pytest.param(
            [*NODE_INFO_43[:4], "down", "-nan", "2", "unknown", *NODE_INFO_43[8:]],
            LiveInfo(False, None, 168.0),
            id="a server that pgpool cannot log in to has no role",
        ),
    ],
)  # fmt: skip
async def test_what_servers_tell_pgpool_in_both_layouts(words: list[str], expected: LiveInfo) -> None:
    answer = ONE + frame("i", "NodeInfo", *words) + DONE
    async with pcp_server({"I": answer}) as (endpoint, requests), connect(endpoint, 5.0) as connection:
        assert (await connection.node_info(1))[1] == expected
    assert requests[2] == b"I1\0"


@pytest.mark.parametrize(
    ("status", "quarantine", "role", "expected"),
    [
        pytest.param("1", "0", "2", (Status.WAITING, True), id="the primary, not used yet"),
        pytest.param("2", "0", "3", (Status.UP, False), id="a standby"),
        pytest.param("3", "0", "3", (Status.DOWN, False), id="down"),
        pytest.param("3", "1", "3", (Status.QUARANTINE, False), id="in quarantine"),
        pytest.param("0", "0", "3", (Status.UNUSED, False), id="unused"),
    ],
)
def test_what_pgpool_thinks(status: str, quarantine: str, role: str, expected: tuple[Status, bool]) -> None:
    words = [*NODE_INFO_43[:2], status, quarantine, "up", "0.5", role, *NODE_INFO_43[7:]]
    backend, _ = pcp.parse_node_info(1, words)
    assert backend == Backend(1, "127.0.0.1", 25302, *expected)


@pytest.mark.parametrize(
    ("kind", "request_bytes", "answer"),
    [
        pytest.param(Kind.DETACH, b"D2\0", "d", id="detach"),
        pytest.param(Kind.ATTACH, b"C2\0", "c", id="attach"),
        pytest.param(
            Kind.PROMOTE, b"J2 \0n\0", "d", id="promote: never with -s, which detaches the old primary"
        ),
    ],
)
async def test_requests_for_a_change(kind: Kind, request_bytes: bytes, answer: str) -> None:
    script = {request_bytes[:1].decode(): frame(answer, "CommandComplete")}
    async with pcp_server(script) as (endpoint, requests), connect(endpoint, 5.0) as connection:
        connection.request(kind, 2)
        assert await connection.outcome(kind) is None
    assert requests[2] == request_bytes


async def test_all_changes_are_sent_before_the_first_answer() -> None:
    answers = iter([[], [frame("d", "CommandComplete") * 2]])  # none to the first, two to the second
    script = {"D": lambda _: next(answers)}
    async with pcp_server(script) as (endpoint, requests), connect(endpoint, 5.0) as connection:
        connection.request(Kind.DETACH, 1)
        connection.request(Kind.DETACH, 0)
        assert [await connection.outcome(Kind.DETACH) for _ in range(2)] == [None, None]
    assert requests[2:4] == [b"D1\0", b"D0\0"]


async def test_settings_are_rows_up_to_command_complete() -> None:
    rows = frame("b", "ProcessConfig", "failover_command", "/bin/true %d", "failover command")
    answer = frame("b", "ArraySize", raw=struct.pack("!i", 1)) + rows + frame("b", "CommandComplete")
    async with pcp_server({"B": answer}) as (endpoint, _), connect(endpoint, 5.0) as connection:
        assert await connection.settings() == {"failover_command": "/bin/true %d"}


async def test_notices_before_an_answer_are_skipped() -> None:
    notice = frame("N", "SNOTICE", "Msomething", "")
    async with pcp_server({"L": notice * 3 + COUNT}) as (endpoint, _), connect(endpoint, 5.0) as connection:
        assert await connection.node_count() == 2


async def test_an_answer_may_arrive_byte_by_byte() -> None:
    script = {"L": [bytes([byte]) for byte in COUNT]}
    async with pcp_server(script) as (endpoint, _), connect(endpoint, 5.0) as connection:
        assert await connection.node_count() == 2


async def test_a_refusal_leaves_the_connection_usable() -> None:
    script = {"D": DISALLOWED, "L": COUNT}
    async with pcp_server(script) as (endpoint, _), connect(endpoint, 5.0) as connection:
        connection.request(Kind.DETACH, 1)
        refusal = await connection.outcome(Kind.DETACH)
        assert refusal is not None
        assert refusal.endswith("canceled because failover is disallowed on the node")
        assert await connection.node_count() == 2


async def test_a_wrong_password_is_said_in_pgpools_words_and_never_shown() -> None:
    async with pcp_server({"R": WRONG_PASSWORD}) as (endpoint, _):
        with pytest.raises(PcpRefused, match=r"authentication failed for user .pcp.: username and/or"):
            async with connect(endpoint, 5.0):
                pytest.fail("logged in")
        assert "secret" not in repr(endpoint)


OK = frame("l", "CommandComplete", "2")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        pytest.param({"M": b""}, "closed the connection", id="closed before the salt"),
        pytest.param({"M": frame("m", raw=b"abc")}, "salt of 3 bytes", id="salt too short"),
        pytest.param({"M": frame("m", raw=b"abcde")}, "salt of 5 bytes", id="salt too long"),
        pytest.param({"R": frame("r", "No")}, "answered a login", id="login neither accepted nor refused"),
        pytest.param({"L": OK[:-3]}, "closed the connection", id="body cut short, then closed"),
        pytest.param({"L": OK[:3]}, "closed the connection", id="head cut short, then closed"),
        pytest.param({"L": b"l\0\0\0\x03"}, "frame of -1 bytes", id="length below its own size"),
        pytest.param({"L": b"l\xff\xff\xff\xff"}, "frame of -5 bytes", id="negative length"),
        pytest.param({"L": b"l\x7f\xff\xff\xff"}, "frame of 2147483643 bytes", id="2 GB announced"),
        pytest.param(
            {"L": b"l\0\0\x20\x05" + bytes(8193)}, "frame of 8193 bytes", id="one byte over the limit"
        ),
        pytest.param({"L": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, "frame of", id="not PCP at all"),
        pytest.param({"L": frame("x", "CommandComplete", "2")}, "type b'x'", id="wrong type"),
        pytest.param({"L": frame("l", "CommandComplete")}, "1 values", id="no count"),
        pytest.param({"L": frame("l", "Other", "2")}, "CommandComplete", id="wrong word"),
        pytest.param({"L": frame("l", "CommandComplete", "-2")}, "'-2'", id="negative count"),
        pytest.param(
            {"L": frame("l", "CommandComplete", "129")}, "129 backends", id="more backends than can be"
        ),
        pytest.param({"L": frame("l", "CommandComplete", "9" * 20)}, "number", id="count of 20 digits"),
        pytest.param({"L": frame("l", "CommandComplete", "²")}, "number", id="a digit, but not an ASCII one"),
        pytest.param({"L": frame("l", raw=b"CommandComplete\x002")}, "cut short", id="last string not ended"),
        pytest.param({"L": frame("l")}, "cut short", id="empty body"),
        pytest.param({"L": frame("N", "x") * 64}, "64 notices", id="notices without end"),
        pytest.param({"L": frame("E")}, "without a message", id="empty error"),
        pytest.param({"L": frame("E", raw=b"M\xff\xfe")}, "�", id="error that is no UTF-8"),
    ],
)
async def test_broken_answers_are_errors(script: dict[str, bytes], complaint: str) -> None:
    # After its bytes the server closes, so that "waits for more" ends too.
    closing = {kind: [answer, b""] if answer else b"" for kind, answer in script.items()}
    async with pcp_server({**LOGIN, **closing}) as (endpoint, _):
        with pytest.raises(PcpError, match=complaint):
            async with connect(endpoint, 5.0) as connection:
                await connection.node_count()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        pytest.param(frame("i", "ArraySize", "2"), "announced", id="two backends where one was asked for"),
        pytest.param(ONE + frame("i", "Other", *NODE_INFO_43), "described a backend with", id="wrong word"),
        pytest.param(
            ONE + frame("i", "NodeInfo", *NODE_INFO_43[1:]), "11 values", id="a value less than 4.3"
        ),
        pytest.param(
            ONE + frame("i", "NodeInfo", *NODE_INFO_44, ""), "14 values", id="a value more than 4.4"
        ),
        pytest.param(ONE + frame("i", "NodeInfo", *NODE_INFO_43) + ONE, "CommandComplete", id="no end"),
        pytest.param(
            ONE + frame("i", "NodeInfo", *NODE_INFO_43[:2], "4", *NODE_INFO_43[3:]),
            "status",
            id="no such status",
        ),
    ],
)
async def test_broken_node_info_is_an_error(answer: bytes, complaint: str) -> None:
    async with pcp_server({"I": answer + DONE}) as (endpoint, _), connect(endpoint, 5.0) as connection:
        with pytest.raises(PcpError, match=complaint):
            await connection.node_info(0)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        pytest.param(
            ["0", "h", "5432", "up", "standby"], "described backend '0'", id="another than was asked for"
        ),
        pytest.param(["1", "h", "5432", "sleeping", "standby"], "'sleeping'", id="unknown status"),
        pytest.param(["1", "h", "x", "up", "standby"], "number", id="the port is no number"),
        pytest.param(["1", "h", "5432", "up"], "5 values", id="one value too few"),
    ],
)
async def test_broken_health_statistics_are_an_error(words: list[str], complaint: str) -> None:
    async with (
        pcp_server({"H": frame("h", "CommandComplete", *words)}) as (endpoint, _),
        connect(endpoint, 5.0) as connection,
    ):
        with pytest.raises(PcpError, match=complaint):
            await connection.backend(1)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(frame("b", "ArraySize"), id="no count"),
        pytest.param(
            frame("b", "ArraySize", raw=bytes(4)) + frame("b", "ProcessConfig", "name"), id="row too short"
        ),
        pytest.param(
            frame("b", "ArraySize", raw=bytes(4))
            + b"".join(frame("b", "ProcessConfig", str(n), "", "") for n in range(2050)),
            id="rows without end",
        ),
    ],
)
async def test_broken_settings_are_an_error(answer: bytes) -> None:
    async with pcp_server({"B": answer}) as (endpoint, _), connect(endpoint, 5.0) as connection:
        with pytest.raises(PcpError, match="settings"):
            await connection.settings()


async def test_silence_ends_with_the_budget_whatever_was_said_before() -> None:
    async with pcp_server({"L": COUNT[:-1]}) as (endpoint, _):
        with pytest.raises(PcpError, match=r"did not answer within 0\.05 s"):
            async with connect(endpoint, 0.05) as connection:
                await connection.node_count()


async def test_nobody_listens(tmp_path: Path) -> None:
    async with pcp_server({}) as (endpoint, _):
        pass
    with pytest.raises(PcpError, match=f"{endpoint}: .*refused|{endpoint}: .*failed"):
        async with connect(endpoint, 5.0):
            pytest.fail("connected")
    missing = Endpoint(socket_dir=tmp_path, port=9898)
    with pytest.raises(PcpError, match=r"\.s\.PGSQL\.9898: No such file or directory"):
        async with connect(missing, 5.0):
            pytest.fail("connected")


@given(st.binary(max_size=200))
def test_any_body_is_read_or_refused_in_words(body: bytes) -> None:
    assert pcp.error_text(body)
    with suppress(PcpError):  # and nothing else
        pcp.parse_node_info(0, pcp.strings(body))
