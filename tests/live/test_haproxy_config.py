"""What is rendered, in real HAProxy 2.6 and 2.8: valid without a warning, and doing what it promises.

The agents are stand-ins that say what a test tells them, and so are the servers behind HAProxy: they
send their name and hold the connection. Tests of a whole cluster are elsewhere.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from healthagent.haproxy.nodes import HaproxyNode, ServerTemplate
from healthagent.haproxy.options import AgentTls, Options
from healthagent.haproxy.render import render, render_template
from tests.bed.certificates import Certificates
from tests.bed.haproxy import Binary, Haproxy, Missing, check, find_haproxy, socket_of
from tests.bed.name_server import NameServer
from tests.bed.stub_agent import StubAgent
from tests.bed.stub_node import StubNode

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "haproxy").glob("*.cfg"))
LINTED = sorted((ROOT / "tests" / "haproxy").glob("*.cfg"))
NAMES = ("pg1", "pg2", "pg3")
REFUSED = "refused"


@pytest.fixture(params=["2.6", "2.8"])
def haproxy(request: pytest.FixtureRequest) -> Binary:
    """HAProxy of both versions; without one the test fails, with the command that installs it."""
    found = find_haproxy(request.param)
    if isinstance(found, Missing):
        pytest.fail(found.problem, pytrace=False)
    return found


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("file", SHIPPED, ids=[file.name for file in SHIPPED])
def test_the_shipped_files_are_valid_without_warnings(haproxy: Binary, file: Path) -> None:
    assert check(haproxy, file) == (0, "")


@pytest.mark.parametrize("file", LINTED, ids=[file.stem for file in LINTED])
def test_the_traps_are_found_in_valid_files(haproxy: Binary, file: Path) -> None:
    status, said = check(haproxy, file)
    assert status == 0, said


@pytest.mark.parametrize("simple", [False, True], ids=["gate", "simple"])
@pytest.mark.parametrize(
    ("node", "options"),
    [
        pytest.param(HaproxyNode("a", "10.0.0.2", 5433, 8018, 8019), {}, id="other ports"),
        pytest.param(HaproxyNode("a", "10.0.0.2", agent_port=None), {}, id="no agent port"),
        pytest.param(
            HaproxyNode("a", "10.0.0.2", http_host="10.1.0.2", agent_host="10.2.0.2"), {}, id="elsewhere"
        ),
        pytest.param(HaproxyNode("a.b:c_D-1", "10.0.0.2"), {}, id="every character of a name"),
        pytest.param(HaproxyNode("a", "::1"), {"bind": "::1"}, id="IPv6"),
        pytest.param(HaproxyNode("a", "10.0.0.1", 5433, 8018), {}, id="an agent-check of two nodes"),
        pytest.param(HaproxyNode("a", "10.0.0.2"), {"stats_port": 7001}, id="stats on another port"),
        pytest.param(HaproxyNode("a", "localhost"), {"nameserver": "127.0.0.1:53"}, id="a name server"),
        pytest.param(HaproxyNode("a", "localhost"), {"nameserver": "resolv.conf"}, id="resolv.conf"),
    ],
)
def test_what_is_rendered_is_valid_without_warnings(
    haproxy: Binary, tmp_path: Path, node: HaproxyNode, options: dict[str, Any], simple: bool
) -> None:
    nodes = [HaproxyNode("usual", "10.0.0.1"), node]
    file = tmp_path / "haproxy.cfg"
    file.write_text(render(nodes, Options(simple=simple, **options)))
    assert check(haproxy, file) == (0, "")


@pytest.mark.parametrize("believe_all", [False, True], ids=["with a CA", "any certificate"])
def test_tls_to_the_agents_is_valid_without_warnings(
    haproxy: Binary, tmp_path: Path, certificates: Certificates, believe_all: bool
) -> None:
    tls = AgentTls(None if believe_all else str(certificates.ca), str(certificates.pem("localhost")))
    file = tmp_path / "haproxy.cfg"
    file.write_text(render([HaproxyNode("a", "localhost")], Options(tls=tls)))
    assert check(haproxy, file) == (0, "")


def test_a_template_is_valid_without_warnings(haproxy: Binary, tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    template = ServerTemplate("pg", "localhost", 3)
    file.write_text(render_template(template, Options(simple=True, nameserver="resolv.conf")))
    assert check(haproxy, file) == (0, "")


@dataclass
class Bed:
    """Three stand-ins for nodes with their agents, and HAProxy in front of them."""

    proxy: Haproxy
    options: Options
    agents: dict[str, StubAgent] = field(default_factory=dict)
    nodes: dict[str, StubNode] = field(default_factory=dict)

    async def connect(self, port: int) -> tuple[str, asyncio.StreamReader]:
        """Connect through HAProxy: the name of the node that answers, REFUSED if HAProxy resets or closes."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionResetError:
            return REFUSED, asyncio.StreamReader()
        self._open.append(writer)
        try:
            async with asyncio.timeout(5):
                name = (await reader.readline()).decode().strip()
        except ConnectionResetError:
            return REFUSED, reader
        return name or REFUSED, reader

    _open: list[asyncio.StreamWriter] = field(default_factory=list)

    async def writes(self, times: int = 10) -> set[str]:
        """Where new connections to the write port go."""
        return {(await self.connect(self.options.write_port))[0] for _ in range(times)}

    async def reads(self, times: int = 10) -> set[str]:
        return {(await self.connect(self.options.read_port))[0] for _ in range(times)}

    async def until_up(self, backend: str, *names: str) -> None:
        await asyncio.to_thread(self.proxy.wait_up, backend, set(names))

    def close(self) -> None:
        for writer in self._open:
            writer.close()


FreePort = Callable[[], int]


async def cut(session: asyncio.StreamReader) -> None:
    """Wait until HAProxy ends this session, with a FIN or a reset; TimeoutError if it does not."""
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            assert await session.read() == b""


@asynccontextmanager
async def bed(
    binary: Binary,
    folder: Path,
    free_port: FreePort,
    *,
    simple: bool = False,
    roles: tuple[str, str, str] = ("primary", "replica", "replica"),
    start: bool = True,
    hard_stop_after: str = "30s",
) -> AsyncIterator[Bed]:
    options = Options(
        simple=simple,
        bind="127.0.0.1",
        write_port=free_port(),
        read_port=free_port(),
        stats_port=free_port(),
        gate_port=free_port(),
        admin_socket=str(socket_of(folder)),
        user="",
    )
    async with AsyncExitStack() as stack:
        agents, nodes = {}, {}
        for name, role in zip(NAMES, roles, strict=True):
            agents[name] = await stack.enter_async_context(StubAgent(role=role))
            nodes[name] = await stack.enter_async_context(StubNode(name))
        servers = [
            HaproxyNode(name, "127.0.0.1", nodes[name].port, agents[name].http_port, agents[name].agent_port)
            for name in NAMES
        ]
        text = render(servers, options).replace("hard-stop-after 30s", f"hard-stop-after {hard_stop_after}")
        made = Bed(Haproxy(binary, text, folder), options, agents, nodes)
        try:
            if start:
                await asyncio.to_thread(made.proxy.start)
            yield made
        finally:
            made.close()
            await asyncio.to_thread(made.proxy.stop)


@pytest.mark.parametrize("simple", [False, True], ids=["gate", "simple"])
async def test_writes_go_to_the_primary_and_reads_to_the_replicas(
    haproxy: Binary, tmp_path: Path, free_port: FreePort, simple: bool
) -> None:
    async with bed(haproxy, tmp_path, free_port, simple=simple) as made:
        await made.until_up("pg_primary", "pg1")
        await made.until_up("pg_replica", "pg2", "pg3")
        assert await made.writes() == {"pg1"}
        assert await made.reads() == {"pg2", "pg3"}


async def test_without_a_replica_the_primary_takes_the_reads(
    haproxy: Binary, tmp_path: Path, free_port: FreePort
) -> None:
    async with bed(haproxy, tmp_path, free_port, roles=("primary", "down", "down")) as made:
        await made.until_up("pg_primary", "pg1")
        await made.until_up("pg_replica")
        assert await made.reads() == {"pg1"}


@pytest.mark.parametrize("simple", [False, True], ids=["gate", "simple"])
async def test_a_switchover_moves_new_connections_and_cuts_the_held_ones(
    haproxy: Binary, tmp_path: Path, free_port: FreePort, simple: bool
) -> None:
    async with bed(haproxy, tmp_path, free_port, simple=simple) as made:
        await made.until_up("pg_primary", "pg1")
        _, held = await made.connect(made.options.write_port)
        made.agents["pg1"].role = "down"
        await cut(held)
        assert await made.writes(3) == {REFUSED}
        made.agents["pg2"].role = "primary"
        await made.until_up("pg_primary", "pg2")
        assert await made.writes() == {"pg2"}


async def test_a_second_primary_stops_all_writes_and_cuts_the_held_ones_at_the_gate(
    haproxy: Binary, tmp_path: Path, free_port: FreePort
) -> None:
    async with bed(haproxy, tmp_path, free_port) as made:
        await made.until_up("pg_primary", "pg1")
        _, held = await made.connect(made.options.write_port)
        made.agents["pg2"].role = "primary"
        await cut(held)
        assert await made.writes() == {REFUSED}
        assert made.nodes["pg2"].connections == 0
        made.agents["pg2"].role = "replica"
        await made.until_up("pg_primary", "pg1")
        assert await made.writes() == {"pg1"}


async def test_a_second_primary_stops_new_writes_in_the_simple_layout(
    haproxy: Binary, tmp_path: Path, free_port: FreePort
) -> None:
    async with bed(haproxy, tmp_path, free_port, simple=True) as made:
        await made.until_up("pg_primary", "pg1")
        _, held = await made.connect(made.options.write_port)
        made.agents["pg2"].role = "primary"
        await made.until_up("pg_primary", "pg1", "pg2")
        assert await made.writes() == {REFUSED}
        assert not held.at_eof()  # what haproxy/README.md says of this layout
        assert made.nodes["pg2"].connections == 0


@pytest.mark.parametrize("simple", [False, True], ids=["gate", "simple"])
async def test_no_write_reaches_a_replica_while_haproxy_starts(
    haproxy: Binary, tmp_path: Path, free_port: FreePort, simple: bool
) -> None:
    async with bed(haproxy, tmp_path, free_port, simple=simple, start=False) as made:
        await asyncio.to_thread(made.proxy.start, wait=False)
        reached: set[str] = set()
        async with asyncio.timeout(10):
            while "pg1" not in reached:
                try:
                    reached.add((await made.connect(made.options.write_port))[0])
                except ConnectionRefusedError:
                    await asyncio.sleep(0.001)
        assert reached <= {REFUSED, "pg1"}


async def test_after_a_reload_the_old_process_does_not_keep_its_sessions_for_ever(
    haproxy: Binary, tmp_path: Path, free_port: FreePort
) -> None:
    async with bed(haproxy, tmp_path, free_port, hard_stop_after="2s") as made:
        await made.until_up("pg_primary", "pg1")
        _, held = await made.connect(made.options.write_port)
        await asyncio.to_thread(made.proxy.reload)
        made.agents["pg1"].role = "down"  # the process that holds the session checks no more
        await cut(held)


async def test_agents_are_asked_what_their_backend_is_for(
    haproxy: Binary, tmp_path: Path, free_port: FreePort
) -> None:
    async with bed(haproxy, tmp_path, free_port) as made:
        await made.until_up("pg_primary", "pg1")
        await made.until_up("pg_replica", "pg2", "pg3")
        agent = made.agents["pg1"]
        assert set(agent.questions) == {b"primary\n", b"replica\n"}
        paths = {request.split()[1] for request in agent.requests}
        assert paths == {"/primary", "/replica"}
        assert any(
            "x-haproxy-server-state: UP" in request.lower().replace(": up", ": UP")
            for request in agent.requests
        )


async def test_tls_believes_an_agent_with_its_own_name_only(
    haproxy: Binary, tmp_path: Path, free_port: FreePort, certificates: Certificates
) -> None:
    async with AsyncExitStack() as stack:
        right = await stack.enter_async_context(
            StubAgent(role="primary", agent_port=False, tls=certificates.server("localhost"))
        )
        wrong = await stack.enter_async_context(
            StubAgent(role="primary", agent_port=False, tls=certificates.server("other.example"))
        )
        nodes = [
            HaproxyNode("right", "localhost", 1, right.http_port, None, http_host="localhost"),
            HaproxyNode("wrong", "localhost", 2, wrong.http_port, None, http_host="localhost"),
        ]
        options = Options(
            simple=True,
            bind="127.0.0.1",
            write_port=free_port(),
            read_port=free_port(),
            stats_port=free_port(),
            admin_socket=str(socket_of(tmp_path)),
            user="",
            tls=AgentTls(str(certificates.ca)),
        )
        proxy = Haproxy(haproxy, render(nodes, options), tmp_path)
        try:
            await asyncio.to_thread(proxy.start)
            await asyncio.to_thread(proxy.wait_up, "pg_primary", {"right"})
            assert right.requests
            assert not wrong.requests
        finally:
            await asyncio.to_thread(proxy.stop)


async def test_a_node_that_loses_its_name_does_not_come_back_unchecked(
    haproxy: Binary, tmp_path: Path, free_port: FreePort
) -> None:
    """The gate cuts every session when a server counts as UP unchecked, so this must not happen."""
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(
            NameServer({"pg1.test": "127.0.0.1", "pg2.test": "127.0.0.1"})
        )
        agents = [await stack.enter_async_context(StubAgent(role=role)) for role in ("primary", "replica")]
        nodes = [await stack.enter_async_context(StubNode(name)) for name in ("pg1", "pg2")]
        servers = [
            HaproxyNode(node.name, f"{node.name}.test", node.port, agent.http_port, agent.agent_port)
            for node, agent in zip(nodes, agents, strict=True)
        ]
        options = Options(
            bind="127.0.0.1",
            write_port=free_port(),
            read_port=free_port(),
            stats_port=free_port(),
            gate_port=free_port(),
            admin_socket=str(socket_of(tmp_path)),
            user="",
            nameserver=f"127.0.0.1:{names.port}",
        )
        text = render(servers, options)
        made = Bed(Haproxy(haproxy, text, tmp_path), options)
        try:
            await asyncio.to_thread(made.proxy.start)
            await made.until_up("pg_probe", "pg1")
            await made.until_up("pg_primary", "pg1")
            name, held = await made.connect(options.write_port)
            assert name == "pg1"
            names.addresses.pop("pg2.test")
            await names.asked("pg2.test", 20)
            assert (await asyncio.to_thread(made.proxy.servers, "pg_probe"))["pg2"] == "DOWN (agent)"
            names.addresses["pg2.test"] = "127.0.0.1"
            await names.asked("pg2.test", 3)
            assert not held.at_eof()
            assert await made.writes(3) == {"pg1"}
        finally:
            made.close()
            await asyncio.to_thread(made.proxy.stop)


def test_nothing_is_left_running(haproxy: Binary, tmp_path: Path, free_port: FreePort) -> None:
    options = Options(
        simple=True,
        bind="127.0.0.1",
        write_port=free_port(),
        read_port=free_port(),
        stats_port=free_port(),
        admin_socket=str(socket_of(tmp_path)),
        user="",
    )
    with Haproxy(haproxy, render([HaproxyNode("a", "127.0.0.1")], options), tmp_path) as proxy:
        proxy.reload()
        worker = proxy.worker()
    status = Path(f"/proc/{worker}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()  # a zombie is init's to reap
