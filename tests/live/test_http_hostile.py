"""Clients that are silent, slow, broken or hostile change nothing for the others.

One agent beside one primary bears all of it. While each kind of client does its worst, an honest
checker asks as HAProxy does; its answers must stay right, and quick (the figures are printed). After
it nothing is logged, and no descriptor is left open.
"""

import asyncio
import os
import random
import resource
import socket
import ssl
import statistics
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from healthagent.crowd import PATIENCE
from healthagent.demo.binaries import Binaries
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.postgres import until
from tests.bed.agent import Agent

pytestmark = pytest.mark.live

ABORT = b"\x01\0\0\0\0\0\0\0"  # SO_LINGER 0: close sends RST
P99 = 0.5  # seconds, where this machine is busy too; a checker's time-out is a second


@pytest.fixture(scope="module", autouse=True)
def files() -> None:
    """As many descriptors as we may have: we are thousands of clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture(scope="module")
def cluster(binaries: Binaries, template: Template) -> Iterator[Cluster]:
    with Cluster(binaries, 1, template=template) as made:
        yield made


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Agent]:
    # a new connection to PostgreSQL now and then would change the number of open descriptors
    settings = {"postgres": {"reconnect_every": "1h"}}
    with Agent(tmp_path_factory.mktemp("hostile"), cluster.nodes[0], settings=settings) as started:
        ready(started)
        yield started


@pytest.fixture(scope="module")
def narrow_agent(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Agent]:
    """One whose hard limit of open files is 512."""
    settings = {"postgres": {"reconnect_every": "1h"}}
    narrow = Agent(tmp_path_factory.mktemp("narrow"), cluster.nodes[0], settings=settings)
    try:
        narrow.start(wait=False)
        resource.prlimit(narrow.pid, resource.RLIMIT_NOFILE, (256, 512))
        narrow.wait_answering()
        ready(narrow)
        yield narrow
    finally:
        narrow.kill()


def ready(agent: Agent) -> None:
    """Wait until it serves, and has said so in its log."""
    until(lambda: "primary: 200" in agent.log(), 15, f"{agent.name} serves")


def open_files(agent: Agent) -> int:
    return len(os.listdir(f"/proc/{agent.pid}/fd"))


def memory(agent: Agent) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Checker:
    """The honest one: a new connection each time, in a thread of its own."""

    def __init__(self, agent: Agent) -> None:
        self.address = (agent.host, agent.port)
        self.took: list[float] = []
        self.wrong: list[str] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._check)

    def _check(self) -> None:
        while not self._done.is_set():
            began = time.monotonic()
            try:
                with socket.create_connection(self.address, 5) as client:
                    client.sendall(b"GET /primary HTTP/1.0\r\n\r\n")
                    got = b""
                    while part := client.recv(65536):
                        got += part
            except OSError as error:
                self.wrong.append(repr(error))
                continue
            self.took.append(time.monotonic() - began)
            if not got.startswith(b"HTTP/1.0 200 OK\r\n") or not got.endswith(b"}"):
                self.wrong.append(repr(got[:200]))
            time.sleep(0.005)

    async def __aenter__(self) -> "Checker":
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._done.set()
        await asyncio.to_thread(self._thread.join)


@asynccontextmanager
async def undisturbed(agent: Agent, what: str) -> AsyncIterator[None]:
    """Whatever happens inside, the checker is answered as ever, and nothing is left behind."""
    log, files = agent.log(), open_files(agent)
    async with Checker(agent) as checker:
        yield
        await asyncio.sleep(0.2)
    p99 = statistics.quantiles(checker.took, n=100)[98]
    p50, slowest = statistics.median(checker.took), max(checker.took)
    print(
        f"\n{what}: {len(checker.took)} checks beside it, p50 {p50 * 1e3:.1f} ms, "
        f"p99 {p99 * 1e3:.1f} ms, max {slowest * 1e3:.1f} ms; agent {memory(agent) >> 20} MB"
    )
    assert checker.wrong == []
    assert len(checker.took) > 20
    assert p99 < P99
    assert agent.log() == log
    await asyncio.to_thread(
        until, lambda: open_files(agent) <= files, PATIENCE + 5, f"the agent is back to {files} open files"
    )


async def connected(agent: Agent) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(client, (agent.host, agent.port))
    except BaseException:
        client.close()
        raise
    return client


async def crowd(agent: Agent, number: int) -> list[socket.socket]:
    """Many connections, a hundred at a time; those that are refused or dropped at once are left out."""
    found: list[socket.socket] = []
    for _ in range(number // 100):
        made = await asyncio.gather(*(connected(agent) for _ in range(100)))
        found += made
    return found


async def ended(client: socket.socket, within: float) -> bytes:
    """All that comes until the agent hangs up; TimeoutError when it does not."""
    loop, got = asyncio.get_running_loop(), b""
    async with asyncio.timeout(within):
        with suppress(ConnectionError):
            while part := await loop.sock_recv(client, 1 << 16):
                got += part
    client.close()
    return got


async def trickle(agent: Agent, first: bytes, drop: bytes, every: float) -> float:
    """Send `first`, then a byte now and then; returns after how many seconds the agent has hung up."""
    client = await connected(agent)
    loop, began = asyncio.get_running_loop(), time.monotonic()
    with suppress(ConnectionError):
        await loop.sock_sendall(client, first)
        while time.monotonic() - began < 3 * PATIENCE:
            await loop.sock_sendall(client, drop)
            await asyncio.sleep(every)
    client.close()
    return time.monotonic() - began


async def test_two_thousand_silent_connections(agent: Agent) -> None:
    async with undisturbed(agent, "2,000 silent connections"):
        clients = await crowd(agent, 2000)
        began = time.monotonic()
        assert await asyncio.gather(*(ended(client, PATIENCE + 5) for client in clients)) == [b""] * 2000
        assert time.monotonic() - began < PATIENCE + 2


async def test_two_thousand_silent_connections_at_an_agent_with_512_files(narrow_agent: Agent) -> None:
    async with undisturbed(narrow_agent, "2,000 silent connections, 512 files"):
        clients = await crowd(narrow_agent, 2000)
        await asyncio.sleep(1)
        assert open_files(narrow_agent) < 512
        for client in clients:
            client.close()


async def test_slow_clients(agent: Agent) -> None:
    """Slowloris in the header (a byte each 50 ms), in a body, in a kept connection; one that never reads."""
    slow = {
        "a header": (b"GET /primary HTTP/1.1\r\nX: ", b"x"),
        "a request line": (b"GET /", b"x"),
        "a second request": (b"GET /primary HTTP/1.1\r\nHost: a\r\n\r\nGET /pri", b"x"),
        "a body": (
            b"POST /maintenance HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 4000\r\n\r\n",
            b" ",
        ),
        "a chunked body": (
            b"POST /override HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"1\r\n \r\n",
        ),
        "a body to a check": (b"GET /primary HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n", b" "),
    }
    async with undisturbed(agent, "60 slow clients and 2 that never read"):
        deaf = [asyncio.create_task(ask_and_never_read(agent)) for _ in range(2)]
        lasted = await asyncio.gather(
            *(trickle(agent, first, drop, 0.05) for first, drop in slow.values() for _ in range(10))
        )
        assert max(lasted) < PATIENCE + 2, dict(zip(slow, lasted[::10], strict=True))
        await asyncio.gather(*deaf)


async def ask_and_never_read(agent: Agent) -> None:
    """Pipeline questions until the kernel's buffers hold no more answers; then wait to be dropped."""
    client = await connected(agent)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    questions = b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
    try:
        async with asyncio.timeout(PATIENCE + 15):
            while True:
                await loop.sock_sendall(client, questions)
    except ConnectionError:
        pass
    finally:
        client.close()


@pytest.mark.parametrize("path", ["/primary", "/status"])
async def test_a_pipelined_flood_is_answered_in_bounded_memory(agent: Agent, path: str) -> None:
    before = memory(agent)
    async with undisturbed(agent, f"2,000 pipelined {path}"):
        client = await connected(agent)
        questions = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 1999
        questions += f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(client, questions))
        got = await ended(client, 30)
        await sending
        assert got.count(b"HTTP/1.1 200 OK\r\n") == 2000
    assert memory(agent) - before < 64 << 20


async def test_ten_thousand_connections_opened_and_dropped(agent: Agent) -> None:
    async with undisturbed(agent, "10,000 connections opened and dropped"):
        for turn in range(100):
            for client in await crowd(agent, 100):
                if turn % 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                client.close()


async def test_resets_right_after_the_status_line(agent: Agent) -> None:
    loop = asyncio.get_running_loop()

    async def check() -> bytes:
        client = await connected(agent)
        await loop.sock_sendall(client, b"OPTIONS /primary HTTP/1.0\r\n\r\n")
        line = await loop.sock_recv(client, 17)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        client.close()
        return line

    async with undisturbed(agent, "2,000 resets after the status line"):
        for _ in range(40):
            assert set(await asyncio.gather(*(check() for _ in range(50)))) == {b"HTTP/1.0 200 OK\r\n"}


def hello() -> bytes:
    """The first bytes of a TLS client."""
    sent = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="pg1")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


NONSENSE = {
    "1 MB of a request line": b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
    "a 1 MB query": b"GET /replica?lag=" + b"1" * (1 << 20) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a 1 MB header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
    "100,000 headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 100_000 + b"\r\n",
    "a TLS hello": hello(),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "a PostgreSQL startup packet": bytes.fromhex("0000001c00030000") + b"user\0u\0database\0d\0\0",
    "an SSLRequest": bytes.fromhex("0000000804d2162f"),
    "nothing but line ends": b"\r\n" * 100_000,
    "zeros": bytes(100_000),
    "a chunk of a size without end": b"POST /peer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"f" * 100_000,
    "a wrong chunk": b"POST /maintenance HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: application/json\r\n\r\nzz\r\n",
    "a body of 1 TB": b"POST /maintenance HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1099511627776\r\n\r\n" + b" " * 1_000_000,
    "a websocket": b"GET /primary HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + b"\x81\xff" * 1000,
}


async def test_nonsense(agent: Agent) -> None:
    """Each kind is answered 400 (or what it may be taken for), or dropped, and never a 5xx of its own."""
    noise = random.Random(7)
    loop = asyncio.get_running_loop()
    at_once = asyncio.Semaphore(5)

    async def say(words: bytes) -> bytes:
        async with at_once:
            client = await connected(agent)
            with suppress(ConnectionError):
                await loop.sock_sendall(client, words)
                client.shutdown(socket.SHUT_WR)
            return await ended(client, PATIENCE + 5)

    kinds = {**NONSENSE, **{f"noise {n}": noise.randbytes(noise.randrange(1, 3000)) for n in range(200)}}
    async with undisturbed(agent, "nonsense"):
        for _ in range(3):
            answers = await asyncio.gather(*(say(words) for words in kinds.values()))
            for kind, got in zip(kinds, answers, strict=True):
                statuses = [line.split(b" ")[1] for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.")]
                assert set(statuses) <= {b"400", b"413", b"200", b"405"}, (kind, got[:200])


async def test_a_client_that_half_closes_is_answered(agent: Agent) -> None:
    loop = asyncio.get_running_loop()
    async with undisturbed(agent, "500 half-closed connections"):
        for _ in range(10):
            clients = await crowd(agent, 100)
            for client in clients[:50]:
                await loop.sock_sendall(
                    client, b"GET /primary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                )
                client.shutdown(socket.SHUT_WR)
            for client in clients[50:]:
                client.shutdown(socket.SHUT_WR)
            answers = await asyncio.gather(*(ended(client, 5) for client in clients))
            assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") for answer in answers[:50])
            assert answers[50:] == [b""] * 50
