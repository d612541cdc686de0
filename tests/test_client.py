"""Which agent a command asks, and that no answer, however odd, keeps it longer than its budget."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from healthagent.commands import client
from healthagent.commands.client import BadUrl, Unreachable, agent_url, ask
from tests.agent_yaml import written
from tests.bed.certificates import Certificates
from tests.bed.web import Answer, answering, response


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEALTHAGENT_LISTEN", "HEALTHAGENT_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        pytest.param(None, "http://127.0.0.1:8008", id="the default"),
        pytest.param("http://pg1:8008", "http://pg1:8008", id="a name"),
        pytest.param("http://pg1", "http://pg1", id="without a port"),
        pytest.param("https://pg1:8008/", "https://pg1:8008", id="TLS, with a slash"),
        pytest.param("http://[fd00::1]:8008", "http://[fd00::1]:8008", id="IPv6"),
        pytest.param("http://pg_1.a-b.example.:8008", "http://pg_1.a-b.example.:8008", id="odd but a name"),
    ],
)
def test_the_url_that_is_given(given: str | None, url: str) -> None:
    assert agent_url(given) == url


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param("pg1:8008", id="no scheme"),
        pytest.param("ftp://pg1", id="another scheme"),
        pytest.param("http://", id="no host"),
        pytest.param("http://pg1:port", id="a port that is no number"),
        pytest.param("http://pg1:0", id="port zero"),
        pytest.param("http://pg1:65536", id="a port too large"),
        pytest.param("http://[fd00::1", id="half an IPv6 address"),
        pytest.param("http://pg1/primary", id="with a path"),
        pytest.param("http://pg1?lag=1", id="with a query"),
        pytest.param("http://pg1#x", id="with a fragment"),
        pytest.param("http://user:secret@pg1", id="with a password"),
        pytest.param("http://p g1", id="a blank in the host"),
        pytest.param("http://pg1\x00", id="a control character"),
        pytest.param("http://a..b", id="an empty label"),
        pytest.param(f"http://{'a' * 70}.example", id="a label too long"),
        pytest.param("http://pg1é", id="a letter that no resolver takes"),
    ],
)
def test_a_malformed_url(url: str) -> None:
    with pytest.raises(BadUrl, match="--url: ") as bad:
        agent_url(url)
    assert "secret" not in str(bad.value)


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        pytest.param("10.0.0.1:8018", "http://10.0.0.1:8018", id="an address"),
        pytest.param("0.0.0.0:8018", "http://127.0.0.1:8018", id="every IPv4 address is loopback"),
        pytest.param("[::]:8018", "http://[::1]:8018", id="every IPv6 address is loopback"),
        pytest.param("pg1:8018", "http://pg1:8018", id="a name"),
    ],
)
def test_the_address_that_the_environment_or_the_file_names(
    listen: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, f"listen: '{listen}'\n")
    assert agent_url(None, str(file)) == url
    monkeypatch.setenv("HEALTHAGENT_LISTEN", listen)
    assert agent_url(None) == url
    assert agent_url("http://given:1") == "http://given:1"


def test_an_agent_with_tls_is_asked_so(tmp_path: Path) -> None:
    pem = Certificates(tmp_path).pem("localhost")
    file = written(tmp_path, f"listen: 0.0.0.0:8018\ntls: {{cert: {pem}, key: {pem}}}\n")
    assert agent_url(None, str(file)) == "https://127.0.0.1:8018"


def test_a_configuration_that_is_wrong_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(BadUrl, match="unknown setting"):
        agent_url(None, str(written(tmp_path, "lisen: 1.2.3.4:1\n")))


def test_what_an_agent_says() -> None:
    with answering({"/primary": response(503, b'{"a": 1}'), "/text": response(200, b"no json")}) as url:
        reply = ask(url, "/primary")
        assert (reply.status, reply.body, reply.json) == (503, b'{"a": 1}', {"a": 1})
        assert ask(url, "/text").json is None


def trickle(connection: socket.socket, _request: bytes) -> bytes:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def be_silent(connection: socket.socket, _request: bytes) -> bytes:
    return connection.recv(1)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x16\x03\x01", id="TLS"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", id="half a body"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000, id="headers without end"),
        pytest.param(trickle, id="a byte now and then"),
        pytest.param(be_silent, id="silence"),
    ],
)
def test_no_answer_is_unreachable_within_the_budget(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BUDGET", 0.3)
    with answering({"/primary": answer}) as url:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=f"{url}/primary: "):
            ask(url, "/primary")
        assert time.monotonic() - began < 3


def test_nobody_there_is_unreachable(free_port: Callable[[], int]) -> None:
    with pytest.raises(Unreachable, match="refused"):
        ask(f"http://127.0.0.1:{free_port()}", "/primary")
