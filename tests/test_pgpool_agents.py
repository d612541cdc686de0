"""What the words of an agent mean to pgpool, and what broken agents cannot do."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from healthagent.core.model import Role
from healthagent.pgpool.agents import (
    BODY_LIMIT,
    LOST,
    Answer,
    Silent,
    StatusSaid,
    ask,
    ask_all,
    believed,
    open_session,
    read_status,
    says,
)
from healthagent.pgpool.model import Says


def status(
    role: str | None, primary: str, replica: str = "not_replica", *, name: str = "pg1", cluster: str = "main"
) -> Answer:
    """A `/status` with these reasons; the reasons `primary` and `replica*` permit."""
    body = {
        "name": name,
        "cluster": cluster,
        "role": role,
        "verdicts": {
            "primary": {"ok": primary == "primary", "reason": primary, "detail": "why"},
            "replica": {"ok": replica.startswith("replica"), "reason": replica, "detail": "why"},
        },
        "peers": [{"unknown": "to us"}],
    }
    return read_status(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(status("primary", "primary"), Says.PRIMARY, id="permits writes"),
        pytest.param(status("replica", "not_primary", "replica"), Says.REPLICA, id="permits reads"),
        pytest.param(
            status("replica", "not_primary", "replica_no_primary"),
            Says.REPLICA,
            id="reads survive a dead primary",
        ),
        pytest.param(status("replica", "not_primary", "lagging"), Says.UNFIT_REPLICA, id="a lagging replica"),
        pytest.param(
            status("primary", "maintenance", "maintenance"), Says.REFUSED, id="primary in maintenance"
        ),
        pytest.param(
            status("replica", "maintenance", "maintenance"), Says.REFUSED, id="replica in maintenance"
        ),
        *(
            pytest.param(status("primary", str(word)), Says.REFUSED, id=f"primary: {word}")
            for word in sorted(LOST)
        ),
        pytest.param(
            status("primary", "forced_off"), Says.REFUSED, id="writes were taken away by an operator"
        ),
        pytest.param(
            status("replica", "forced_off", "replica"), Says.REPLICA, id="the same, and a replica meanwhile"
        ),
        pytest.param(status("primary", "system_id_mismatch"), Says.UNDECIDED, id="two clusters of one name"),
        pytest.param(status("primary", "start_gate"), Says.UNDECIDED, id="an agent that just started"),
        pytest.param(status("primary", "stopping", "stopping"), Says.UNDECIDED, id="an agent that stops"),
        pytest.param(
            status("replica", "stopping", "stopping"), Says.UNDECIDED, id="a replica's agent that stops"
        ),
        pytest.param(
            status("primary", "isolated_at_start"), Says.UNDECIDED, id="a primary that heard nobody yet"
        ),
        pytest.param(status("primary", "a word of a later version"), Says.UNDECIDED, id="an unknown reason"),
        pytest.param(status(None, "postgres_down", "postgres_down"), Says.DOWN, id="PostgreSQL is down"),
        pytest.param(status(None, "postgres_stale", "postgres_stale"), Says.UNDECIDED, id="PostgreSQL hangs"),
        pytest.param(status(None, "diverged"), Says.UNDECIDED, id="refused, but the role is not known"),
        pytest.param(
            status("replica", "primary"), Says.UNKNOWN, id="permits writes on a replica: contradiction"
        ),
        pytest.param(status("primary", "x", "replica"), Says.UNKNOWN, id="reads of a replica on a primary"),
    ],
)
def test_what_an_agent_says(answer: Answer, expected: Says) -> None:
    assert isinstance(answer, StatusSaid)
    assert says(answer) is expected


@pytest.mark.parametrize(
    ("name", "cluster", "expected"),
    [
        pytest.param("pg1", "main", Says.PRIMARY, id="the node and the cluster that were meant"),
        pytest.param("pg1", None, Says.PRIMARY, id="no cluster is known yet"),
        pytest.param("pg2", "main", Says.UNKNOWN, id="another node"),
        pytest.param("pg1", "other", Says.UNKNOWN, id="another cluster"),
    ],
)
def test_only_the_agent_that_was_meant_is_believed(name: str, cluster: str | None, expected: Says) -> None:
    told = believed(name, cluster, status("primary", "primary"))
    assert told.says is expected
    assert told.role is (None if expected is Says.UNKNOWN else Role.PRIMARY)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="HTML"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"name": "pg1", "cluster": "main"}', id="no verdicts"),
        pytest.param(b'{"name": 1, "cluster": "main", "verdicts": {}}', id="a name that is a number"),
        pytest.param(b'{"name": "\xff"}', id="no UTF-8"),
        pytest.param(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="nested 100,000 deep"),
        pytest.param(b'{"name": "' + b"x" * 300 + b'"}', id="a name of 300 characters"),
    ],
)
def test_a_status_that_cannot_be_read_is_silence(body: bytes) -> None:
    answer = read_status(body)
    assert isinstance(answer, Silent)
    assert "cannot be read" in answer.why


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def agent(serve: Serve) -> AsyncIterator[str]:
    """An agent that reads a request and then does what `serve` does; its base URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone, as it should
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def asked(serve: Serve, timeout: float = 5.0) -> Answer:
    async with agent(serve) as url, open_session(None, timeout) as session:
        return await ask(session, url)


async def test_an_agent_that_redirects_is_not_followed() -> None:
    async def redirect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    assert await asked(redirect) == Silent("its /status answered 302")


async def test_an_agent_that_never_stops_talking_is_cut_off() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" " * 65536)
            await writer.drain()

    assert await asked(endless) == Silent(f"its /status is longer than {BODY_LIMIT} bytes")


async def test_an_agent_that_does_not_answer_is_waited_for_no_longer_than_the_budget() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client has gone

    assert await asked(silent, 0.1) == Silent("it did not answer in time")


async def test_one_silent_agent_does_not_hide_another() -> None:
    async def fine(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY.encode()))

    async with agent(fine) as url, open_session(None, 5.0) as session:
        answers = await ask_all(session, [("pg1", url), ("pg2", "http://127.0.0.1:1")])
    assert isinstance(answers["pg1"], StatusSaid)
    assert isinstance(answers["pg2"], Silent)
    assert "could not be asked" in answers["pg2"].why


BODY = json.dumps(
    {
        "name": "pg1",
        "cluster": "main",
        "verdicts": {"primary": {"ok": False, "reason": "x"}, "replica": {"ok": False, "reason": "x"}},
    }
)
