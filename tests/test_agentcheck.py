"""HAProxy's agent-check: the line for each question, and the server with real sockets."""

import asyncio
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthagent import agentcheck
from healthagent.agentcheck import MAX_LINE, MAX_QUESTION, WAIT, AgentCheck, answer
from healthagent.board import Board
from healthagent.core.model import Failure, LagLimit, Reason
from healthagent.core.view import Maintenance
from tests.bed.boards import PRIMARY, START, Clock, board, replica

BUDGET = 5.0  # seconds, for a machine that is busy with something else
LIMIT = LagLimit(lag_bytes=10_000)


@pytest.mark.parametrize(
    ("made", "primary", "reads"),
    [
        pytest.param(
            board(PRIMARY),
            b"up\n",
            b"down #not_replica: PostgreSQL is not in recovery: a primary\n",
            id="a primary",
        ),
        pytest.param(
            board(replica()),
            b"down #not_primary: PostgreSQL is in recovery: a replica\n",
            b"up 100%\n",
            id="a replica",
        ),
        pytest.param(
            board(replica(5_000), LIMIT),
            b"down #not_primary: PostgreSQL is in recovery: a replica\n",
            b"up 50%\n",
            id="a replica half way to its lag limit",
        ),
        pytest.param(
            board(replica(10_000), LIMIT),
            b"down #not_primary: PostgreSQL is in recovery: a replica\n",
            b"up 1%\n",
            id="a replica at its lag limit",
        ),
        pytest.param(
            board(replica(10_001), LIMIT),
            b"down #not_primary: PostgreSQL is in recovery: a replica\n",
            b"down #lagging: 10001 bytes behind, at most 10000 bytes is wanted\n",
            id="a replica beyond its lag limit",
        ),
        pytest.param(
            board(None, witness=True),
            b"down #witness: this agent has no PostgreSQL\n",
            b"down #witness: this agent has no PostgreSQL\n",
            id="a witness",
        ),
        pytest.param(
            board(None),
            b"down #starting_up: PostgreSQL has not answered yet since the agent started\n",
            b"down #starting_up: PostgreSQL has not answered yet since the agent started\n",
            id="no evidence yet",
        ),
    ],
)
def test_the_line_says_the_verdict(made: Board, primary: bytes, reads: bytes) -> None:
    assert answer(b"primary\n", made, START) == primary
    assert answer(b"replica\n", made, START) == reads


def test_stale_evidence_is_down_whatever_was_said_before() -> None:
    made = board(PRIMARY)
    assert answer(b"primary\n", made, START + 2.0) == b"up\n"
    assert answer(b"primary\n", made, START + 2.1).startswith(b"down #postgres_stale: ")


def test_stopping_is_said_to_either_question() -> None:
    made = board(PRIMARY)
    made.stop(START)
    for question in (b"primary\n", b"replica\n"):
        assert answer(question, made, START) == b"down #stopping: the agent is shutting down\n"


def test_maintenance_takes_the_node_out_without_the_latching_word() -> None:
    made = board(replica())
    made.maintain(Maintenance(None), START)
    assert answer(b"replica\n", made, START).startswith(b"down #maintenance: ")


@pytest.mark.parametrize(
    "question",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n", id="an empty line"),
        pytest.param(b"primary\r\n", id="the word with a carriage return"),
        pytest.param(b"REPLICA\n", id="a word in other letters"),
        pytest.param(b"replica\\n", id="what agent-send in single quotes sends"),
        pytest.param(b"replicas\n", id="a longer word"),
        pytest.param(b"\nreplica\n", id="the word on a second line"),
        pytest.param(b"\xff\xfe\n", id="no text"),
    ],
)
def test_what_is_not_understood_counts_as_primary(question: bytes) -> None:
    assert answer(question, board(PRIMARY), START) == b"up\n"
    assert answer(question, board(replica()), START).startswith(b"down #not_primary: ")


@pytest.mark.parametrize("question", [b"replica\n", b"replica\r\n", b"replica", b" replica \n"])
def test_the_replica_word_is_understood_with_blanks_or_without_an_end(question: bytes) -> None:
    assert answer(question, board(replica()), START) == b"up 100%\n"


@given(detail=st.text(max_size=400))
def test_a_refusal_is_one_printable_line_of_bounded_length(detail: str) -> None:
    made = board(None)
    made.observe_failure(Failure(Reason.POSTGRES_DOWN, detail, START), START)
    line = answer(b"primary\n", made, START)
    assert re.fullmatch(rb"down #postgres_down:[ -~]*\n", line)
    assert len(line) <= MAX_LINE


def test_a_detail_is_cut_only_when_it_must_be() -> None:
    made = board(None)
    lead = len("down #postgres_down: ")
    for length, kept in ((MAX_LINE - 1 - lead, MAX_LINE - 1 - lead), (MAX_LINE - lead, MAX_LINE - 1 - lead)):
        made.observe_failure(Failure(Reason.POSTGRES_DOWN, "x" * length, START), START)
        assert answer(b"primary\n", made, START) == b"down #postgres_down: " + b"x" * kept + b"\n"


@asynccontextmanager
async def serving(made: Board, connections: int = 100) -> AsyncIterator[tuple[AgentCheck, int]]:
    check = AgentCheck(made, Clock(), connections, asyncio.get_running_loop())
    [port] = await check.listen("127.0.0.1", 0)
    try:
        yield check, port
    finally:
        check.close()
        await until(lambda: not check.crowd)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(BUDGET):
        while not holds():  # noqa: ASYNC110 - nobody but a test waits for a crowd, so it has no event
            await asyncio.sleep(0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is silent stays unanswered: what the test does next does not race against `WAIT`."""
    monkeypatch.setattr(agentcheck, "WAIT", 2 * BUDGET)


async def told(port: int, *said: bytes, end: bool = False) -> bytes:
    """Everything that the server answers until it closes."""
    async with asyncio.timeout(BUDGET):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in said:
            writer.write(part)
            await writer.drain()
        if end:
            writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()


async def test_one_line_is_answered_and_the_connection_closed() -> None:
    async with serving(board(replica())) as (_, port):
        assert await told(port, b"replica\n") == b"up 100%\n"
        assert await told(port, b"primary\n") == b"down #not_primary: PostgreSQL is in recovery: a replica\n"


async def test_silence_is_answered_as_primary_after_the_wait() -> None:
    async with serving(board(PRIMARY)) as (_, port):
        begun_at = asyncio.get_running_loop().time()
        assert await told(port) == b"up\n"
        assert asyncio.get_running_loop().time() - begun_at >= WAIT * 0.9


async def test_a_question_in_pieces_is_put_together() -> None:
    async with serving(board(replica())) as (_, port):
        assert await told(port, b"rep", b"lica", b"\n") == b"up 100%\n"


async def test_a_client_that_ends_its_side_is_answered_at_once() -> None:
    async with serving(board(replica())) as (_, port):
        assert await told(port, b"replica", end=True) == b"up 100%\n"
        assert (await told(port, end=True)).startswith(b"down #not_primary: ")


async def test_a_question_without_an_end_is_read_up_to_its_bound() -> None:
    async with serving(board(PRIMARY)) as (_, port):
        assert await told(port, b"x" * MAX_QUESTION) == b"up\n"


async def test_who_says_far_too_much_is_answered_all_the_same() -> None:
    async with serving(board(PRIMARY)) as (_, port):
        loop = asyncio.get_running_loop()
        # a bare socket: a stream of asyncio would drop the answer for the reset that follows it
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            async with asyncio.timeout(BUDGET):
                await loop.sock_sendall(client, b"x" * 100_000)
                assert await loop.sock_recv(client, 100) == b"up\n"


async def test_every_answer_is_the_verdict_of_its_moment() -> None:
    made = board(PRIMARY)
    async with serving(made) as (_, port):
        assert await told(port, b"primary\n") == b"up\n"
        made.stop(START)
        assert await told(port, b"primary\n") == b"down #stopping: the agent is shutting down\n"


@pytest.mark.usefixtures("patient")
async def test_whoever_waits_when_the_agent_stops_hears_so_and_nobody_after() -> None:
    made = board(PRIMARY)
    async with serving(made) as (check, port):
        waiting = asyncio.create_task(told(port))
        await until(lambda: len(check.crowd) == 1)
        made.stop(START)
        check.close()
        assert await waiting == b"down #stopping: the agent is shutting down\n"
        with pytest.raises(ConnectionRefusedError):
            await told(port, b"primary\n")


async def test_a_reset_is_normal_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving(board(PRIMARY)) as (check, port):
            for said in (b"", b"prim", b"primary\n"):
                client = socket.create_connection(("127.0.0.1", port))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(said)
                client.close()  # with SO_LINGER 0 a RST, as HAProxy ends its checks
            assert await told(port, b"primary\n") == b"up\n"
            await until(lambda: not check.crowd)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.usefixtures("patient")
async def test_the_one_that_waited_longest_makes_room() -> None:
    async with serving(board(PRIMARY), connections=2) as (check, port):
        first = asyncio.create_task(told(port))
        await until(lambda: len(check.crowd) == 1)
        second = asyncio.create_task(told(port))
        await until(lambda: len(check.crowd) == 2)
        assert await told(port, b"primary\n") == b"up\n"
        assert await first == b""
        assert not second.done()
        check.close()
        assert await second == b"up\n"


@pytest.mark.usefixtures("patient")
async def test_silent_clients_keep_no_checker_out() -> None:
    async with serving(board(PRIMARY), connections=50) as (check, port):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        try:
            await until(lambda: len(check.crowd) == 50)
            for _ in range(10):
                assert await told(port, b"primary\n") == b"up\n"
        finally:
            for client in silent:
                client.close()
