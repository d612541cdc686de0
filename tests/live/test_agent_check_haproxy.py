"""What a real HAProxy makes of our agent-check, and what it tells us of its sessions."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from healthagent.agentcheck import AgentCheck
from healthagent.board import Board
from healthagent.core.model import LagLimit
from healthagent.demo.ports import free_port
from healthagent.metrics import Metrics, Sources
from healthagent.server.answers import Answers
from healthagent.server.http import Surface
from tests.bed.boards import PRIMARY, START, Clock, board, replica
from tests.bed.haproxy import INSTALL, Binary, Haproxy, socket_of

pytestmark = pytest.mark.live

BUDGET = 10.0  # seconds; HAProxy asks each 100 ms
LIMIT = LagLimit(lag_bytes=10_000)

DEFAULTS = """
global
    stats socket {socket} mode 600 level admin
    max-spread-checks 50
defaults
    mode tcp
    timeout connect 1s
    timeout check 1s
    timeout client 30s
    timeout server 30s
"""
AGENT_CHECK = """
backend {name}
    server pg1 127.0.0.1:{upstream} check inter 100ms weight 100 agent-check agent-addr 127.0.0.1 \
agent-port {port} agent-inter 100ms agent-send "{question}\\n"
"""
SEND_STATE = """
frontend write
    bind 127.0.0.1:{bind}
    default_backend pg_primary
backend pg_primary
    option httpchk
    http-check send meth OPTIONS uri /primary
    http-check send-state
    http-check expect status 200
    server pg1 127.0.0.1:{upstream} check port {port} inter 100ms
"""

Row = dict[str, str]


@contextmanager
def haproxy(folder: Path, text: str) -> Iterator[Haproxy]:
    found = shutil.which("haproxy", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
    if found is None:
        pytest.fail(f"no haproxy: run `{INSTALL}`", pytrace=False)
    with Haproxy(Binary(Path(found), ""), DEFAULTS.format(socket=socket_of(folder)) + text, folder) as proxy:
        yield proxy


@asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    """Something that takes connections and keeps them, in the place of PostgreSQL; its port."""

    kept: set[asyncio.StreamWriter] = set()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.add(writer)
        try:
            await reader.read()
        except ConnectionResetError:
            pass  # HAProxy ends its checks so
        finally:
            writer.close()
            kept.discard(writer)

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for writer in kept:  # of whom HAProxy has not yet taken leave
        writer.transport.abort()
    await asyncio.sleep(0)


async def becomes(proxy: Haproxy, backend: str, holds: Callable[[Row], bool]) -> Row:
    """The first row of `show stat` for the backend's server for which `holds` is true."""
    row: Row = {}

    def look() -> Row:
        return next(one for one in proxy.stats() if (one["pxname"], one["svname"]) == (backend, "pg1"))

    try:
        async with asyncio.timeout(BUDGET):
            while not holds(row := await asyncio.to_thread(look)):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        shown = {name: row.get(name) for name in ("status", "weight", "agent_status", "last_agt")}
        pytest.fail(f"{backend} stays {shown}:\n{proxy.said()}")
    return row


async def is_up(proxy: Haproxy, backend: str, weight: int) -> None:
    await becomes(proxy, backend, lambda row: (row["status"], row["weight"]) == ("UP", str(weight)))


async def is_down(proxy: Haproxy, backend: str, reason: str) -> None:
    await becomes(
        proxy, backend, lambda row: row["status"] == "DOWN (agent)" and f"{reason}: " in row["last_agt"]
    )


async def listen(made: Board, port: int) -> tuple[AgentCheck, int]:
    check = AgentCheck(made, Clock(), 100, asyncio.get_running_loop())
    [port] = await check.listen("127.0.0.1", port)
    return check, port


async def test_haproxy_does_as_each_line_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = board(replica(), LIMIT, hold=0.0)
    async with upstream() as postgres:
        check, port = await listen(made, 0)
        text = "".join(
            AGENT_CHECK.format(name=name, upstream=postgres, port=port, question=question)
            for name, question in (("writes", "primary"), ("reads", "replica"))
        )
        with haproxy(tmp_path, text) as proxy:
            await is_up(proxy, "reads", 100)
            await is_down(proxy, "writes", "not_primary")

            made.observe(replica(behind=7_576), START)
            await is_up(proxy, "reads", 25)
            made.observe(replica(behind=10_000), START)
            await is_up(proxy, "reads", 1)
            made.observe(replica(behind=10_001), START)
            await is_down(proxy, "reads", "lagging")
            made.observe(replica(), START)
            await is_up(proxy, "reads", 100)  # the 1% is not kept

            made.observe(PRIMARY, START)
            await is_up(proxy, "writes", 100)
            await is_down(proxy, "reads", "not_replica")

            made.stop(START)
            await is_down(proxy, "writes", "stopping")
            await is_down(proxy, "reads", "stopping")
            check.close()
            asked = await becomes(proxy, "writes", lambda row: row["agent_status"] == "L4CON")
            assert asked["status"] == "DOWN (agent)"  # a closed port is no news

            check, _ = await listen(board(PRIMARY), port)
            await is_up(proxy, "writes", 100)
            check.close()
    assert [record.getMessage() for record in caplog.records] == []  # HAProxy resets each connection


async def test_the_sessions_that_haproxy_keeps_to_a_refusing_node_are_a_metric(tmp_path: Path) -> None:
    made, bind = board(PRIMARY), free_port()
    surface = Surface(Answers(made), Clock(), 100, asyncio.get_running_loop())
    metrics = Metrics(made, Clock(), Sources(haproxy_sessions=surface.haproxy_states.sessions))

    def sessions() -> dict[str, float]:
        families = text_string_to_metric_families(metrics.render(None)[0].decode())
        [family] = [one for one in families if one.name == "healthagent_haproxy_sessions"]
        return {sample.labels["server"]: sample.value for sample in family.samples}

    async def reach(wanted: dict[str, float]) -> None:
        async with asyncio.timeout(BUDGET):
            while sessions() != wanted:  # noqa: ASYNC110 - HAProxy tells, when it likes
                await asyncio.sleep(0.02)

    async with upstream() as postgres:
        [port] = await surface.listen("127.0.0.1", 0)
        with haproxy(tmp_path, SEND_STATE.format(bind=bind, upstream=postgres, port=port)) as proxy:
            await reach({"pg_primary/pg1": 0})
            _, client = await asyncio.open_connection("127.0.0.1", bind)
            await reach({"pg_primary/pg1": 1})
            made.stop(START)
            await becomes(proxy, "pg_primary", lambda row: row["status"] == "DOWN")
            await reach({"pg_primary/pg1": 1})  # there is no on-marked-down in this configuration
            client.close()
            await reach({"pg_primary/pg1": 0})
        await surface.close()
