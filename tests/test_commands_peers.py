"""`healthagent peers check` against real servers: its lines and its exit codes."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from healthagent import __version__
from healthagent.board import Board, Identity
from healthagent.clock import boottime
from healthagent.commands import main
from healthagent.commands import peers as checking
from healthagent.core.peer import Peer
from healthagent.core.view import Memory, Policy
from healthagent.peers.exchange import Exchange
from healthagent.wire import encode
from tests.agent_yaml import written
from tests.bed.certificates import Certificates
from tests.bed.peer_server import Play, WildPeer, answering, http

# asyncio's TLS transports close some turns of the loop after everybody has let go of them
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")

SECRET = "a secret of at least this many bytes"
WELL = f"well: version {__version__}, same cluster, same members"


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def board(name: str = "pg2", peers: tuple[str, ...] = ("pg1",), cluster: str = "main") -> Board:
    return Board(
        Identity(name, cluster, f"start of {name}"),
        Policy(durable=False),
        Memory(boottime() - 500),
        [Peer(peer) for peer in peers],
    )


@pytest.fixture
def check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., object]:
    monkeypatch.setattr(checking, "CLOCK_WINDOW", 0.4)

    async def run(urls: dict[str, str], **settings: object) -> tuple[int, list[str]]:
        peers = [{"name": name, "url": url} for name, url in urls.items()]
        given = {"name": "pg1", "cluster": "main", "state_dir": None, "peers": peers, **settings}
        peer = {"interval": "50ms", "timeout": "200ms", "max_age": "1s", **dict(settings.get("peer", {}))}  # type: ignore[call-overload]
        file = written(tmp_path, json.dumps({**given, "peer": peer}))
        code = await asyncio.to_thread(exit_code, ["peers", "check", "-c", str(file)])
        said = capsys.readouterr()
        assert said.err == ""
        return code, said.out.splitlines()

    return run


Check = Callable[..., asyncio.Future[tuple[int, list[str]]]]


async def test_all_is_well(check: Check) -> None:
    async with answering(board()) as (url, _):
        assert await check({"pg2": url}) == (0, [f"pg2: {WELL}"])


async def test_nobody_to_ask(check: Check) -> None:
    assert await check({}) == (0, ["no peers are configured"])


async def test_one_cannot_be_reached(check: Check, free_port: Callable[[], int]) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    async with answering(board(peers=("pg1", "pg3"))) as (url, _):
        code, lines = await check({"pg2": url, "pg3": gone})
    assert code == 3
    assert lines == [f"pg2: {WELL}", f"pg3: cannot be reached: {gone}: Connection refused"]


async def test_one_accepts_and_is_silent(check: Check) -> None:
    async def silence(line: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with WildPeer(silence) as peer:
        code, lines = await check({"pg2": peer.url})
    assert (code, lines) == (3, [f"pg2: cannot be reached: {peer.url}: no answer within 0.2 s"])


@pytest.mark.parametrize(
    ("answering_board", "line"),
    [
        pytest.param(board(cluster="other"), "foreign_cluster: it belongs to cluster 'other'", id="cluster"),
        pytest.param(board("pg9"), "wrong_name: it calls itself 'pg9'", id="name"),
        pytest.param(
            board(peers=("pg1", "pg3")),
            "members: it has another list of members; compare the `peers` of both",
            id="members",
        ),
    ],
)
async def test_what_differs(check: Check, answering_board: Board, line: str) -> None:
    async with answering(answering_board) as (url, _):
        assert await check({"pg2": url}) == (1, [f"pg2: {line}"])


def saying(**fields: Callable[[], object]) -> Play:
    """An agent that says this instead of what is true."""
    made = board()

    async def play(line: str, writer: asyncio.StreamWriter) -> None:
        content = json.loads(encode(made.describe(boottime())))
        content |= {name: value() for name, value in fields.items()}
        writer.write(http(json.dumps(content).encode()))
        await writer.drain()

    return play


async def test_another_version_is_told_and_no_fault(check: Check) -> None:
    async with WildPeer(saying(version=lambda: "9.9.9\x1b[31m")) as peer:
        found = await check({"pg2": peer.url})
    assert found == (
        0,
        [f"pg2: version: '9.9.9\\x1b[31m' there, {__version__!r} here (fine during an upgrade)"],
    )


async def test_a_clock_of_another_rate(check: Check) -> None:
    begun = boottime()
    async with WildPeer(saying(uptime=lambda: 1000 + 3 * (boottime() - begun))) as peer:
        code, [line] = await check({"pg2": peer.url})
    assert code == 1
    assert line.startswith(("pg2: clock: runs at 3.", "pg2: clock: runs at 2."))


async def test_no_agent_there(check: Check) -> None:
    async with WildPeer(http(b"hello", "404 Not Found")) as peer:
        code, [line] = await check({"pg2": peer.url})
    assert code == 1
    assert line.startswith("pg2: misunderstood: /peer answered 404; /patroni: neither an agent nor a Patroni")


async def test_a_patroni_node(check: Check) -> None:
    body = b'{"state":"running","role":"replica","patroni":{"version":"4.1.5","scope":"hp","name":"n1"}}'
    async with WildPeer(http(body, "503 Service Unavailable")) as peer:
        assert await check({"pg2": peer.url}) == (
            0,
            ["pg2: well: a Patroni node, version '4.1.5': 'Patroni says replica, running'"],
        )


# With a secret.


async def test_the_same_secret_on_both(check: Check) -> None:
    made = board()
    async with answering(made, Exchange(SECRET.encode(), "start of pg2")) as (url, listener):
        assert await check({"pg2": url}, peer={"secret": SECRET}) == (0, [f"pg2: {WELL}"])
    assert made.peers["pg1"].statement is None  # asked, and told nothing
    assert listener.rejected == {}


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        pytest.param(b"another secret of many bytes", "/peer answered 401", id="another secret there"),
        pytest.param(None, "/peer answered 403", id="no secret there"),
    ],
)
async def test_another_secret(check: Check, theirs: bytes | None, words: str) -> None:
    exchange = Exchange(theirs, "start of pg2") if theirs else None
    async with answering(board(), exchange) as (url, _):
        code, [line] = await check({"pg2": url}, peer={"secret": SECRET})
    assert code == 1
    assert line.startswith(f"pg2: misunderstood: {words}")
    assert "peer.secret" in line


# With TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def test_a_certificate_of_the_configured_authority(check: Check, certificates: Certificates) -> None:
    async with answering(board(), tls=certificates.server("localhost")) as (url, _):
        named = url.replace("127.0.0.1", "localhost")
        found = await check({"pg2": named}, tls={"ca": str(certificates.ca)})
    assert found == (0, [f"pg2: {WELL}"])


@pytest.mark.parametrize(
    ("host", "ca", "words"),
    [
        pytest.param("127.0.0.1", True, "IP address mismatch", id="a certificate for another host"),
        pytest.param("localhost", False, "unable to get local issuer certificate", id="an unknown authority"),
    ],
)
async def test_a_certificate_that_is_refused(
    check: Check, certificates: Certificates, host: str, ca: bool, words: str
) -> None:
    settings = {"tls": {"ca": str(certificates.ca)}} if ca else {}
    async with answering(board(), tls=certificates.server("localhost")) as (url, _):
        code, [line] = await check({"pg2": url.replace("127.0.0.1", host)}, **settings)
    assert code == 3
    assert "cannot be reached" in line
    assert "its certificate is refused" in line
    assert words in line


async def test_plain_http_where_tls_is_spoken(check: Check, certificates: Certificates) -> None:
    async with answering(board(), tls=certificates.server("localhost")) as (url, _):
        code, [line] = await check({"pg2": url.replace("https", "http")})
    assert (code, "cannot be reached" in line) == (3, True)
