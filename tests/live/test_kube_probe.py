"""Probes as kubelet sends them (Kubernetes 1.30: pkg/probe/http), against a real agent."""

import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from healthagent.demo.binaries import Binaries
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent, agents_beside
from tests.bed.certificates import Certificates

pytestmark = pytest.mark.live

TIMEOUT = 1.0  # seconds for everything: timeoutSeconds, by default
FAILURES = 3  # in a row, until kubelet acts: failureThreshold, by default
LONGEST_BODY = 10 << 10  # bytes: kubelet drops the rest
CHECKS = ("/readiness", "/liveness", "/primary", "/replica")


@dataclass(frozen=True)
class Probe:
    """What one probe saw; `status` is 0 when nothing came in time."""

    status: int
    head: str = ""
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """A redirect to the same host is followed, one to another host is a success: there must be none."""
        assert not 300 <= self.status < 400, f"a redirect: {self.head}"
        return 200 <= self.status < 300


def probe(agent: Agent, path: str, host: str | None = None, *, tls: bool = False) -> Probe:
    """One HTTP GET in the words of Go's net/http, with kubelet's headers and its one time-out."""
    deadline = time.monotonic() + TIMEOUT
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {host or f'{agent.host}:{agent.port}'}\r\n"
        "User-Agent: kube-probe/1.30\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    answer = b""
    try:
        with connected(agent, tls=tls) as connection:
            connection.sendall(request.encode())
            while True:  # until the other side closes, as it was asked to
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                if not (chunk := connection.recv(65536)):
                    break
                answer += chunk
    except OSError:
        return Probe(0)
    if not answer:
        return Probe(0)
    head, _, body = answer.partition(b"\r\n\r\n")
    return Probe(int(head.split(b" ")[1]), head.decode(), body)


def connected(agent: Agent, *, tls: bool) -> socket.socket:
    connection = socket.create_connection((agent.host, agent.port), timeout=TIMEOUT)
    if not tls:
        return connection
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # InsecureSkipVerify: pods have no names in certificates
    context.set_alpn_protocols(["h2", "http/1.1"])  # kubelet would speak HTTP/2, if it were spoken here
    return context.wrap_socket(connection, server_hostname=agent.host)


def probed(agent: Agent, path: str, host: str | None = None, *, tls: bool = False) -> Probe:
    """What kubelet would act on: a failure to answer in time counts from the third in a row."""
    for _ in range(FAILURES):
        found = probe(agent, path, host, tls=tls)
        if found.status:
            break
    return found


def all_checks(agent: Agent, *, tls: bool = False) -> dict[str, bool]:
    return {path: probed(agent, path, tls=tls).ok for path in CHECKS}


def expected(*ok: str) -> dict[str, bool]:
    return {path: path in ok for path in CHECKS}


@contextmanager
def well(folder: Path, cluster: Cluster) -> Iterator[list[Agent]]:
    """Agents beside a primary and its replica, both in service."""
    with agents_beside(folder, cluster.nodes) as found:
        found[0].wait_for("/primary", 200)
        found[1].wait_for("/replica", 200)
        yield found


@pytest.fixture
def agents(tmp_path: Path, streaming: Cluster) -> Iterator[list[Agent]]:
    """For a test that breaks something."""
    with well(tmp_path, streaming) as found:
        yield found


@pytest.fixture(scope="module")
def calm(
    tmp_path_factory: pytest.TempPathFactory, binaries: Binaries, template: Template
) -> Iterator[list[Agent]]:
    """For the tests that only ask."""
    with (
        Cluster(binaries, 2, template=template) as cluster,
        well(tmp_path_factory.mktemp("calm"), cluster) as found,
    ):
        yield found


def test_a_primary_and_its_replica(calm: list[Agent]) -> None:
    primary, replica = calm
    assert all_checks(primary) == expected("/readiness", "/liveness", "/primary")
    assert all_checks(replica) == expected("/readiness", "/liveness", "/replica")


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("10.1.2.3:8008", id="the pod's address"),
        pytest.param("[fd00::1]:8008", id="an IPv6 address"),
        pytest.param("db.example.net", id="a name of the manifest"),
        pytest.param("_", id="no name at all"),
    ],
)
def test_any_host_is_answered(calm: list[Agent], host: str) -> None:
    assert probed(calm[0], "/readiness", host).status == 200


def test_an_answer_is_closed_and_short(calm: list[Agent]) -> None:
    for path in CHECKS:
        found = probed(calm[0], path)
        headers = dict(line.lower().split(": ", 1) for line in found.head.split("\r\n")[1:])
        assert headers["connection"] == "close"
        assert int(headers["content-length"]) == len(found.body) < LONGEST_BODY
        assert "location" not in headers


def test_a_query_is_part_of_the_path(calm: list[Agent]) -> None:
    assert probed(calm[1], "/readiness?lag=16MB&mode=apply").ok
    assert probed(calm[1], "/readiness?lag=16mb").status == 400, "a slip is a failed probe, not a limit less"


def test_a_dead_primary(agents: list[Agent], streaming: Cluster) -> None:
    """The replica stays ready for reads; nothing is restarted, since every agent is alive."""
    primary, replica = agents
    streaming.nodes[0].kill9()
    primary.wait_for("/primary", 503, "postgres_down")
    assert all_checks(primary) == expected("/liveness")
    replica.wait_for("/replica", 200, "replica_no_primary", timeout=30.0)
    assert all_checks(replica) == expected("/readiness", "/liveness", "/replica")


def test_a_frozen_postgresql_is_answered_in_time(agents: list[Agent], streaming: Cluster) -> None:
    streaming.nodes[0].freeze()
    try:
        until(lambda: not probed(agents[0], "/readiness").ok, 15.0, "it is not ready")
        assert all_checks(agents[0]) == expected("/liveness")
    finally:
        streaming.nodes[0].thaw()


def test_an_agent_that_stops_is_alive_until_its_end(agents: list[Agent]) -> None:
    """Not ready, so that no new client comes; alive, so that kubelet does not kill it in its last words."""
    primary, _ = agents
    primary.signal(signal.SIGTERM)
    primary.wait_for("/primary", 503, "stopping")
    seen: dict[str, set[int]] = {"/readiness": set(), "/liveness": set()}
    while primary.is_running():
        for path, statuses in seen.items():
            statuses.add(probe(primary, path).status)
    assert seen["/readiness"] - {0} == {503}
    assert seen["/liveness"] - {0} == {200}
    assert primary.wait() == 0


def test_https_without_verification(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, postgres: Node
) -> None:
    pem = str(Certificates(tmp_path_factory.mktemp("ca")).pem("somebody.example"))
    agent = Agent(tmp_path, postgres, settings={"tls": {"cert": pem, "key": pem}})
    try:
        agent.start(wait=False)
        until(lambda: probe(agent, "/primary", tls=True).ok, 60.0, "it serves over TLS")
        assert all_checks(agent, tls=True) == expected("/readiness", "/liveness", "/primary")
        with connected(agent, tls=True) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            assert connection.selected_alpn_protocol() in (None, "http/1.1")
        assert probe(agent, "/liveness").status in (0, 400), "a probe without TLS is no success"
    finally:
        agent.kill()
