"""Certificates that are renewed while the agent runs, and which TLS it speaks."""

import http.client
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent
from tests.bed.certificates import Certificates
from tests.bed.command import ran

pytestmark = pytest.mark.live

Place = tuple[Agent, Path, int]


@pytest.fixture
def old(tmp_path: Path) -> Certificates:
    (tmp_path / "old").mkdir()
    return Certificates(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> Certificates:
    (tmp_path / "new").mkdir()
    return Certificates(tmp_path / "new")


@pytest.fixture
def place(tmp_path: Path, postgres: Node, old: Certificates, free_port: Callable[[], int]) -> Iterator[Place]:
    """An agent with TLS on a port of its own, and a plain listener for checks beside it."""
    pem, port = tmp_path / "agent.pem", free_port()
    pem.write_bytes(old.pem("localhost").read_bytes())
    ca = tmp_path / "ca.pem"
    ca.write_bytes(old.ca.read_bytes())
    agent = Agent(tmp_path, postgres)
    agent.change(
        {
            "listen": f"127.0.0.1:{port}",
            "checks": {"listen": f"127.0.0.1:{agent.port}"},
            "tls": {"cert": str(pem), "key": str(pem), "client_ca": str(ca)},
        }
    )
    with agent:
        agent.wait_for("/primary", 200)
        yield agent, pem, port


def trusts(authority: Certificates, port: int, client: Path | None = None) -> bool:
    """Whether a client of this authority gets an answer over TLS."""
    context = ssl.create_default_context(cafile=authority.ca)
    if client is not None:
        context.load_cert_chain(client)
    connection = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
    try:
        connection.request("GET", "/primary")
        return connection.getresponse().status == 200
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        connection.close()


def replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def test_a_health_check_knows_of_tls_from_the_environment_alone(place: Place) -> None:
    """What the image's HEALTHCHECK runs, in a container that has no file."""
    _agent, pem, port = place
    listen, file = f"127.0.0.1:{port}", str(pem)
    said = ran(
        "check",
        "liveness",
        HEALTHAGENT_LISTEN=listen,
        HEALTHAGENT_TLS_CERT=file,
        HEALTHAGENT_TLS_KEY=file,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "running: the agent runs\n", "")
    assert ran("check", "liveness", HEALTHAGENT_LISTEN=listen).returncode == 3


@pytest.mark.parametrize("told", [True, False], ids=["on SIGHUP", "by itself"])
def test_a_renewed_certificate_is_taken(
    place: Place, old: Certificates, new: Certificates, told: bool
) -> None:
    agent, pem, port = place
    assert trusts(old, port)
    assert not trusts(new, port)
    context = ssl.create_default_context(cafile=old.ca)
    kept = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
    kept.connect()  # before: it goes on as it is
    replace(pem, new.pem("localhost").read_bytes())
    if told:
        agent.signal(signal.SIGHUP)
        until(lambda: trusts(new, port), 20, "the new certificate is in force")
        kept.request("GET", "/liveness")
        assert kept.getresponse().status == 200
    until(lambda: trusts(new, port), 20, "the new certificate is in force")
    kept.close()
    assert not trusts(old, port)
    assert "tls: new certificates are in force\n" in agent.log()
    assert agent.status()["alarms"] == []


@pytest.mark.parametrize("content", [b"", b"no certificate", None], ids=["empty", "garbage", "gone"])
def test_a_pair_that_cannot_be_used_keeps_the_old_one(
    place: Place, old: Certificates, new: Certificates, content: bytes | None
) -> None:
    agent, pem, port = place
    if content is None:
        pem.unlink()
    else:
        replace(pem, content)
    until(lambda: bool(agent.status()["alarms"]), 20, "an alarm says so")
    [alarm] = agent.status()["alarms"]
    assert alarm.startswith("tls: the new files cannot be used, the old ones stay in force: ")
    assert trusts(old, port)
    assert agent.get("/primary").status == 200  # over the plain listener beside it
    replace(pem, new.pem("localhost").read_bytes())
    until(lambda: trusts(new, port), 20, "a good pair is taken")
    until(lambda: agent.status()["alarms"] == [], 5, "the alarm is over")


def test_a_key_that_belongs_to_another_certificate_is_not_taken(
    place: Place, old: Certificates, new: Certificates
) -> None:
    """Half of a pair that is being replaced."""
    agent, pem, port = place
    certificate = (new.folder / "localhost.crt").read_bytes() if new.pem("localhost") else b""
    replace(pem, certificate + (old.folder / "localhost.key").read_bytes())
    until(lambda: bool(agent.status()["alarms"]), 20, "an alarm says so")
    assert trusts(old, port)


def test_another_authority_of_callers_is_taken(place: Place, old: Certificates, new: Certificates) -> None:
    agent, pem, port = place
    assert trusts(old, port, old.pem("pg2"))
    assert not trusts(old, port, new.pem("pg2"))
    replace(pem.with_name("ca.pem"), new.ca.read_bytes())
    agent.signal(signal.SIGHUP)
    until(lambda: trusts(old, port, new.pem("pg2")), 20, "callers of the new authority are let in")
    assert not trusts(old, port, old.pem("pg2"))
    assert os.path.exists(pem)


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        pytest.param(ssl.TLSVersion.TLSv1, False, id="1.0"),
        pytest.param(ssl.TLSVersion.TLSv1_1, False, id="1.1"),
        pytest.param(ssl.TLSVersion.TLSv1_2, True, id="1.2"),
        pytest.param(ssl.TLSVersion.TLSv1_3, True, id="1.3"),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_which_tls_is_spoken(place: Place, old: Certificates, version: ssl.TLSVersion, spoken: bool) -> None:
    _, _, port = place
    context = ssl.create_default_context(cafile=old.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")  # else our own library would refuse before the agent can
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("localhost", port), 5) as plain:
        if not spoken:
            # an alert or, from uvloop, no word at all; our own side would speak it
            with pytest.raises(ssl.SSLError, match=r"(?i)alert|eof"):
                context.wrap_socket(plain, server_hostname="localhost")
            return
        with context.wrap_socket(plain, server_hostname="localhost") as secured:
            assert secured.version() is not None
