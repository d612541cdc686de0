"""Real agents that speak to each other: with and without a secret, over TLS, and by DSN when one is dead."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from healthagent.demo.cluster import Cluster
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent, agents_beside
from tests.bed.certificates import Certificates
from tests.bed.command import HEALTHAGENT

pytestmark = pytest.mark.live

SECRET = "a secret of at least this many bytes"
# as short as a busy machine allows
QUICK = {
    "peer": {"interval": "100ms", "timeout": "500ms", "max_age": "1200ms"},
    "drain": "2400ms",  # the longest freeze that evidence of 2 s lets go unnoticed, and a sixth of it
    "start_alone_after": "2400ms",
}
StartCluster = Callable[..., Cluster]


def with_secret(secret: str | None) -> dict[str, Any]:
    return QUICK if secret is None else {**QUICK, "peer": {**QUICK["peer"], "secret": secret}}  # type: ignore[dict-item]


def peer(agent: Agent, name: str) -> dict[str, Any]:
    """What an agent says of a peer."""
    found = next(one for one in agent.status()["peers"] if one["name"] == name)
    assert isinstance(found, dict)
    return found


def wait(condition: Callable[[], bool], what: str, within: float = 15.0) -> None:
    until(condition, within, what)


def check(agent: Agent) -> tuple[int, str]:
    """`healthagent peers check` with this agent's configuration."""
    command = [*HEALTHAGENT, "peers", "check", "-c", str(agent.config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


@contextmanager
def started(agents: Sequence[Agent]) -> Iterator[None]:
    """All of them, side by side."""
    with ExitStack() as stack:
        for agent in agents:
            stack.callback(agent.kill)
            agent.start(wait=False)
        for agent in agents:
            agent.wait_answering()
        yield


def introduced(folder: Path, nodes: Sequence[Node | None], secret: str | None = None) -> list[Agent]:
    """Agents that have each other in their lists, with a DSN for those with PostgreSQL; None is a witness."""
    agents = [
        Agent(folder, node, name="w1" if node is None else node.name, settings=with_secret(secret))
        for node in nodes
    ]
    for agent, node in zip(agents, nodes, strict=True):
        agent.change({"witness": node is None})
    entries = [
        {"name": agent.name, "url": agent.url, **({"dsn": node.dsn()} if node else {"witness": True})}
        for agent, node in zip(agents, nodes, strict=True)
    ]
    for agent in agents:
        agent.change({"peers": [entry for entry in entries if entry["name"] != agent.name]})
    return agents


@pytest.mark.parametrize("secret", [pytest.param(None, id="pull"), pytest.param(SECRET, id="secret")])
def test_two_agents_hear_each_other_and_say_little(
    tmp_path: Path, streaming: Cluster, secret: str | None
) -> None:
    with agents_beside(tmp_path, streaming.nodes, with_secret(secret)) as (one, two):
        one.wait_for("/primary", 200)
        two.wait_for("/replica", 200, "replica")
        wait(lambda: peer(one, "pg2")["role"] == "replica", "pg1 hears pg2")
        wait(lambda: peer(two, "pg1")["serving"], "pg2 hears that pg1 serves")
        found = peer(two, "pg1")
        assert (found["heard"], found["role"], found["source"]) == (True, "primary", "agent")
        assert one.status()["alarms"] == two.status()["alarms"] == []
        if secret is not None:
            code, lines = check(one)
            assert (code, "well" in lines) == (0, True)
            assert peer(two, "pg1")["heard"]  # being checked has disturbed nobody
        said = one.log().count("\n")
        two.kill()
        wait(lambda: not peer(one, "pg2")["heard"], "pg1 hears pg2 no more")
        if secret is not None:
            code, lines = check(one)
            assert (code, "pg2: cannot be reached" in lines) == (3, True)
        # many questions later
        assert one.get("/primary").status == 200
        assert one.log().count("\n") <= said + 2, one.log()
        assert f"peer pg2: {two.url}: Connection refused" in one.log() or "hung up" in one.log()


def test_with_a_secret_a_change_is_pushed(tmp_path: Path, streaming: Cluster) -> None:
    """pg1 asks only every 1.9 s, and knows of each change of pg2 long before."""
    slow = {
        "peer": {"interval": "1900ms", "timeout": "500ms", "max_age": "2900ms", "secret": SECRET},
        "drain": "3s",
    }
    with agents_beside(tmp_path, streaming.nodes, slow) as (one, two):
        wait(lambda: peer(one, "pg2")["replica"] == {"ok": True, "reason": "replica"}, "pg1 hears pg2")
        took = []
        logged = two.log().count("INFO replica: ")
        for number, (on, reason) in enumerate(6 * [(True, "maintenance"), (False, "replica")], start=1):
            assert two.post("/maintenance", {"on": on}).status == 200
            took.append(seconds_until(one, reason))
            wait_logged(two, "INFO replica: ", logged + number)
        # by asking alone the median would be 0.95 s; the looks of the agent are 0.1 s apart
        assert sorted(took)[6] < 0.4, took


def wait_logged(agent: Agent, line: str, times: int) -> None:
    """Wait until an agent has noticed: what comes and goes between two of its looks is no change to it."""
    wait(lambda: agent.log().count(line) >= times, f"{agent.name} logs {line}")


def seconds_until(one: Agent, reason: str) -> float:
    """How long it takes pg1 to know why pg2 is given reads, or is not."""
    begun = time.monotonic()
    wait(lambda: peer(one, "pg2")["replica"]["reason"] == reason, f"pg1 knows that pg2 says {reason}")
    return time.monotonic() - begun


def test_a_promotion_is_known_at_once(tmp_path: Path, streaming: Cluster) -> None:
    slow = {
        "peer": {"interval": "1900ms", "timeout": "500ms", "max_age": "2900ms", "secret": SECRET},
        "drain": "3s",
        "postgres": {"interval": "50ms"},
    }
    _, second = streaming.nodes
    with agents_beside(tmp_path, streaming.nodes, slow) as (one, two):
        one.wait_for("/primary", 200)
        wait(lambda: peer(one, "pg2")["role"] == "replica", "pg1 hears pg2")
        asked = float(peer(one, "pg2")["age"])
        second.promote()
        wait(lambda: two.status()["role"] == "primary", "pg2 is a primary")
        begun = time.monotonic()
        wait(lambda: peer(one, "pg2")["role"] == "primary", "pg1 knows")
        assert time.monotonic() - begun < 1.0, asked
        wait(lambda: one.get("/primary").reason == "diverged", "two nodes, nobody is the clear winner")
        assert two.get("/primary").status == 503


def test_a_secret_on_one_side_only(tmp_path: Path, streaming: Cluster) -> None:
    one, two = (Agent(tmp_path, node, settings=QUICK) for node in streaming.nodes)
    one.change({"peers": [{"name": "pg2", "url": two.url}], "peer": {"secret": SECRET}})
    two.change({"peers": [{"name": "pg1", "url": one.url}]})
    with started([one, two]):
        wait(lambda: peer(two, "pg1")["heard"], "who has no secret asks and hears")
        wait(lambda: one.status()["alarms"] != [], "who has one says that the other has none")
        [alarm] = one.status()["alarms"]
        assert alarm.startswith("peer pg2: misunderstood: /peer answered 403 to a signed question")
        assert "peer.secret" in alarm
        wait(lambda: "peer pg2: misunderstood" in one.log(), "and logs it")
        assert check(one)[0] == 1
        assert one.log().count("peer pg2: misunderstood") == 1


def test_the_dsn_is_asked_only_while_the_agent_is_silent(tmp_path: Path, streaming: Cluster) -> None:
    first, second = streaming.nodes
    one, two = introduced(tmp_path, streaming.nodes, SECRET)

    def probes() -> int:
        """Connections of the probe's role to pg1."""
        [[count]] = first.psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'healthagent'")
        return int(count)

    with started([one, two]):
        one.wait_for("/primary", 200)
        two.wait_for("/replica", 200, "replica")
        # who never heard it serve has no reason to think that it may still
        wait(lambda: peer(two, "pg1")["serving"], "pg2 hears that pg1 serves")
        # at the start it was silent for a moment
        wait(lambda: peer(two, "pg1")["asked_directly"] is None, "pg2 leaves pg1's PostgreSQL alone")
        wait(lambda: probes() <= 2, "only its own agent asks it")
        one.kill()
        wait(lambda: peer(two, "pg1")["asked_directly"] is not None, "pg2 asks pg1's PostgreSQL itself")
        found = peer(two, "pg1")
        assert (found["heard"], found["role"]) == (False, "primary")
        assert two.get("/replica").status == 200
        second.promote()
        # T names pg2, I names pg1, which served a moment ago: its agent's death is no proof of anything
        reply = two.wait_for("/primary", 503, "diverged")
        assert "pg1 on timeline 1" in reply.json["verdict"]["detail"]
        one.start()
        wait(lambda: peer(two, "pg1")["heard"], "pg1's agent is back")
        wait(lambda: peer(two, "pg1")["asked_directly"] is None, "pg2 leaves pg1's PostgreSQL alone again")
        wait(lambda: probes() <= 2, "only its own agent asks it again")
        assert one.get("/primary").status == two.get("/primary").status == 503


def test_a_follower_votes_by_its_dsn(tmp_path: Path, start_cluster: StartCluster) -> None:
    """pg3's agent is dead; its PostgreSQL still says whom it follows, which decides."""
    cluster = start_cluster(3)
    one, two, three = introduced(tmp_path, cluster.nodes)
    three.kill()  # it was never started
    with started([one, two]):
        one.wait_for("/primary", 200)
        wait(lambda: peer(two, "pg3")["role"] == "replica", "pg2 asks pg3's PostgreSQL")
        wait(lambda: peer(one, "pg3")["role"] == "replica", "pg1 asks pg3's PostgreSQL")
        cluster.nodes[1].promote()
        two.wait_for("/primary", 503, "lost_conflict")
        conflict = two.status()["conflict"]
        assert conflict["winner"]["name"] == "pg1"
        assert conflict["signals"]["followers"]["name"] == "pg1"
        assert one.get("/primary").status == 200


def test_a_witness_makes_a_majority(tmp_path: Path, streaming: Cluster) -> None:
    first, second = streaming.nodes
    one, two, witness = introduced(tmp_path, [*streaming.nodes, None], SECRET)
    with started([one, two, witness]):
        one.wait_for("/primary", 200)
        assert witness.get("/primary").reason == "witness"
        wait(lambda: witness.status()["members"]["heard"] == 3, "the witness hears both")
        one.kill()
        first.kill9()
        second.promote()
        reply = two.wait_for("/primary", 200)
        assert reply.json["timeline"] == 2
        wait(
            lambda: [mark["timeline"] for mark in witness.status()["high_water"]] == [2], "the witness knows"
        )
        two.kill()
        second.kill9()
        first.start()
        one.start()
        one.wait_for("/primary", 503, "stale_timeline")  # only the witness knew


# TLS between agents; the bed asks on a plain port beside it.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def over_tls(agents: Sequence[Agent], certificates: Certificates, *, client_ca: bool) -> None:
    ports = {agent.name: free_port() for agent in agents}
    pem = str(certificates.pem("localhost"))
    tls = {"cert": pem, "key": pem, "ca": str(certificates.ca)}
    for agent in agents:
        agent.change(
            {
                "listen": f"127.0.0.1:{ports[agent.name]}",
                "checks": {"listen": f"127.0.0.1:{agent.port}"},
                "tls": {**tls, **({"client_ca": tls["ca"]} if client_ca else {})},
                "peers": [
                    {"name": other.name, "url": f"https://localhost:{ports[other.name]}"}
                    for other in agents
                    if other is not agent
                ],
            }
        )


@pytest.mark.parametrize("client_ca", [pytest.param(False, id="tls"), pytest.param(True, id="mutual tls")])
def test_agents_over_tls(
    tmp_path: Path, streaming: Cluster, certificates: Certificates, client_ca: bool
) -> None:
    agents = [Agent(tmp_path, node, settings=QUICK) for node in streaming.nodes]
    over_tls(agents, certificates, client_ca=client_ca)
    one, two = agents
    with started(agents):
        one.wait_for("/primary", 200)
        wait(lambda: peer(one, "pg2")["role"] == "replica", "pg1 hears pg2")
        wait(lambda: peer(two, "pg1")["role"] == "primary", "pg2 hears pg1")
        # a caller without a certificate: /peer is only for peers, checks are for all
        assert one.get("/peer").status == (403 if client_ca else 200)
        assert one.post("/peer", {}).status == 403
        assert check(one)[0] == 0
        assert one.status()["alarms"] == []


def test_a_peer_with_a_certificate_of_another_authority(
    tmp_path: Path, streaming: Cluster, certificates: Certificates
) -> None:
    other = tmp_path / "other authority"
    other.mkdir()
    agents = [Agent(tmp_path, node, settings=QUICK) for node in streaming.nodes]
    over_tls(agents, certificates, client_ca=True)
    one, two = agents
    pem = str(Certificates(other).pem("localhost"))
    two.change({"tls": {"cert": pem, "key": pem}})
    with started(agents):
        wait(lambda: "certificate is refused" in one.log(), "pg1 says why it does not hear pg2")
        code, lines = check(one)
        assert (code, "certificate is refused" in lines) == (3, True)
        assert not peer(one, "pg2")["heard"]
        wait(lambda: "peer pg1: " in two.log(), "pg2 says that it cannot ask pg1")
        assert not peer(two, "pg1")["heard"]
        assert one.log().count("certificate is refused") == 1
