"""Which agent a command asks, and that no answer, however odd, keeps it longer than its budget."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from healthagent.commands import client
from healthagent.commands.client import BadUrl, Unreachable, agent_url, ask
from tests.agent_yaml import written
from tests.bed.web import Answer, answering, response


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEALTHAGENT_LISTEN", "HEALTHAGENT_CONFIG", "HEALTHAGENT_TLS_CERT"):
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


@pytest.mark.parametrize(
    ("text", "environment", "url"),
    [
        pytest.param(
            "listen: 0.0.0.0:8018\ntls: {cert: /no/cert, key: /no/key}",
            {},
            "https://127.0.0.1:8018",
            id="file",
        ),
        pytest.param("listen: 0.0.0.0:8018\ntls: {cert: null}", {}, "http://127.0.0.1:8018", id="null"),
        pytest.param(None, {"TLS_CERT": "/no/cert"}, "https://127.0.0.1:8008", id="environment"),
        pytest.param(
            None,
            {"LISTEN": "10.0.0.1:8443", "TLS_CERT": "/c", "TLS_KEY": "/k"},
            "https://10.0.0.1:8443",
            id="environment, with an address",
        ),
        pytest.param(None, {"TLS_CERT": "null"}, "http://127.0.0.1:8008", id="null in the environment"),
        pytest.param(
            "listen: 0.0.0.0:8018", {"TLS_CERT": "/c"}, "https://127.0.0.1:8018", id="environment over file"
        ),
        pytest.param(
            "listen: 0.0.0.0:8018\ntls: {cert: /c}",
            {"LISTEN": "10.0.0.1:1", "TLS_CERT": "null"},
            "http://10.0.0.1:1",
            id="environment over file, for both",
        ),
    ],
)
def test_an_agent_with_tls_is_asked_so(
    text: str | None,
    environment: dict[str, str],
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"HEALTHAGENT_{name}", value)
    assert agent_url(None, None if text is None else str(written(tmp_path, text))) == url


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("peer: {secret_file: /no/such/secret}", id="a secret that others may not read"),
        pytest.param("drian: 3s", id="a mistyped key"),
        pytest.param("drain: soon", id="a value that cannot be read"),
        pytest.param("drain: 4s\ndrain: 5s", id="a key given twice"),
        pytest.param("isolation: demote", id="a rule between keys"),
        pytest.param("tls: {cert: null, ca: /no/ca}", id="a certificate that is not there"),
        pytest.param("kubernetes: 3", id="a section that is none"),
    ],
)
def test_what_is_wrong_with_other_keys_is_the_agents_business(text: str, tmp_path: Path) -> None:
    file = written(tmp_path, f"listen: 10.0.0.1:8018\n{text}\n")
    assert agent_url(None, str(file)) == "http://10.0.0.1:8018"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("listen: 8018", "agent.yaml:1: listen: want HOST:PORT", id="no address"),
        pytest.param("listen: 0.0.0.0:0", "listen: nobody can be asked at '0.0.0.0:0'", id="any port"),
        pytest.param("tls: {cert: cert.pem}", "tls.cert: want an absolute path", id="no path"),
        pytest.param("listen: [", "agent.yaml:2: is no YAML", id="no YAML"),
        pytest.param("- listen", "want a mapping of settings", id="a list"),
    ],
)
def test_an_address_that_cannot_be_read_is_a_usage_error(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadUrl, match=said):
        agent_url(None, str(written(tmp_path, text)))


def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEALTHAGENT_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(BadUrl, match=r"none\.yaml: cannot be read: No such file"):
        agent_url(None)


def test_an_address_in_the_environment_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEALTHAGENT_LISTEN", "somewhere")
    with pytest.raises(BadUrl, match="listen: nobody can be asked at 'somewhere'"):
        agent_url(None)


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
