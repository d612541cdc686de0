"""TLS contexts, and /peer for callers with and without a certificate, over real sockets."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest

from healthagent.board import Board, Identity
from healthagent.clock import boottime
from healthagent.core.peer import Peer
from healthagent.core.view import Memory, Policy
from healthagent.server import http
from healthagent.tls import client_tls, server_tls
from tests.agent_yaml import settings
from tests.bed.certificates import Certificates
from tests.bed.peer_server import answering

# asyncio's TLS transports close some turns of the loop after everybody has let go of them
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of another authority."""
    return Certificates(tmp_path_factory.mktemp("others"))


def board() -> Board:
    policy = Policy(durable=False)
    return Board(Identity("pg1", "main", "start of pg1"), policy, Memory(boottime() - 500), [Peer("pg2")])


def test_none_is_made_where_none_is_configured(tmp_path: Path) -> None:
    plain = settings(tmp_path, "peers: [{name: pg2, url: http://pg2:8008}]")
    assert server_tls(plain) is None
    assert client_tls(plain) is None


def configured(tmp_path: Path, certificates: Certificates, **more: Path) -> str:
    pem = certificates.pem("localhost")
    keys = {"cert": pem, "key": pem, "ca": certificates.ca, **more}
    lines = "".join(f"  {key}: {path}\n" for key, path in keys.items())
    return f"peers: [{{name: pg2, url: https://localhost:8008}}]\ntls:\n{lines}"


@pytest.fixture
def clients(certificates: Certificates, others: Certificates) -> dict[str, ssl.SSLContext]:
    """Ways to call an agent whose server certificate is for localhost."""
    found = {}
    for name, pem in {
        "no certificate": None,
        "a peer": certificates.pem("pg2"),
        "a stranger": others.pem("pg2"),
    }.items():
        found[name] = ssl.create_default_context(cafile=certificates.ca)
        if pem is not None:
            found[name].load_cert_chain(pem)
    return found


@pytest.mark.parametrize(
    ("client_ca", "caller", "check", "peer"),
    [
        pytest.param(False, "no certificate", 503, 200, id="nobody asks for a certificate"),
        pytest.param(False, "a peer", 503, 200, id="nobody asks for a certificate, one is had"),
        pytest.param(True, "no certificate", 503, 403, id="checks are open, /peer is not"),
        pytest.param(True, "a peer", 503, 200, id="a peer"),
        pytest.param(True, "a stranger", None, None, id="another authority: no handshake"),
    ],
)
async def test_who_may_ask(
    tmp_path: Path,
    certificates: Certificates,
    clients: dict[str, ssl.SSLContext],
    client_ca: bool,
    caller: str,
    check: int | None,
    peer: int | None,
) -> None:
    more = {"client_ca": certificates.ca} if client_ca else {}
    mine = settings(tmp_path, configured(tmp_path, certificates, **more))
    made = answering(board(), tls=server_tls(mine), certified_only=client_ca)
    connector = aiohttp.TCPConnector(ssl=clients[caller])
    async with made as (url, listener), aiohttp.ClientSession(connector=connector) as session:
        named = url.replace("127.0.0.1", "localhost")
        for path, status in (("/primary", check), ("/peer", peer)):
            if status is None:
                with pytest.raises(aiohttp.ClientError):
                    await session.get(f"{named}{path}")
            else:
                async with session.get(f"{named}{path}") as response:
                    assert response.status == status
        if peer is not None:
            async with session.post(f"{named}/peer", data=b"{}") as response:
                assert response.status == 403  # without a certificate, or without a secret
        await connector.close()
    assert (listener.rejected["no_certificate"] > 0) == (peer == 403)


async def test_peer_over_a_plain_listener_beside_it(certificates: Certificates) -> None:
    async with answering(board(), certified_only=True) as (url, _), aiohttp.ClientSession() as session:
        async with session.get(f"{url}/peer") as response:
            assert response.status == 403
        async with session.get(f"{url}/liveness") as response:
            assert response.status == 200


def test_versions_before_1_2_are_not_spoken(tmp_path: Path, certificates: Certificates) -> None:
    mine = settings(tmp_path, configured(tmp_path, certificates, client_ca=certificates.ca))
    server, client = server_tls(mine), client_tls(mine)
    assert server is not None
    assert client is not None
    assert server.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (server.verify_mode, client.verify_mode) == (ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED)
    assert client.check_hostname


async def test_a_caller_that_begins_no_handshake_is_dropped(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.2)
    async with answering(board(), tls=certificates.server("localhost")) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
