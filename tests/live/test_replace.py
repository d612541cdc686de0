"""`healthagent run --replace`: another process answers, and nobody notices."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from healthagent.demo.cluster import Cluster
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent, agents_beside
from tests.bed.certificates import Certificates
from tests.bed.haproxy import Missing, find_haproxy
from tests.bed.replacing import CALMLY, Seen, replaced
from tests.bed.sampler import Sample, Sampler
from tests.conftest import StartCluster

pytestmark = pytest.mark.live

COUNT = 3  # bench/replacements.py does 50
ROOT = Path(__file__).parents[2]
SECRET = "a secret of at least this many bytes"


def unnoticed(seen: Seen) -> None:
    """Claim that nobody saw anything."""
    assert (seen.checks_failed, seen.marked_down) == (0, 0), seen.proxy_said
    assert seen.refused == []
    assert list(seen.cut) == []
    assert seen.commits > 0
    assert len(seen.incarnations) == 1
    assert seen.seen_as == {CALMLY}
    assert seen.peers_said == ""


@pytest.mark.parametrize("how", ["pulling", "secret", "tls"])
async def test_nobody_notices_that_the_agent_of_a_serving_primary_is_replaced(
    start_cluster: StartCluster, tmp_path: Path, how: str
) -> None:
    program = find_haproxy("2.6")
    if isinstance(program, Missing):
        pytest.fail(program.problem, pytrace=False)
    nodes = start_cluster(3).nodes
    settings: dict[str, object] = {"peer": {"secret": SECRET}} if how == "secret" else {}
    if how == "tls":
        pem = str(Certificates(tmp_path).pem("agents.test"))
        settings["tls"] = {"cert": pem, "key": pem}
    seen = await replaced(program, nodes, tmp_path, COUNT, settings=settings, tls=how == "tls")
    assert seen.replacements == COUNT
    unnoticed(seen)


# What else may be in another's place.


def test_without_a_running_agent_it_is_a_start_as_any_other(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres, flags=["--replace"]) as agent:
        agent.wait_for("/primary", 200)
        assert f"no agent runs with state_dir {agent.state_dir}: a start as any other" in agent.log()
        agent.kill()
        agent.start()  # a socket is left behind, and nobody listens to it
        agent.wait_for("/primary", 200)
        assert agent.stop() == 0


def test_it_needs_a_state_dir(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres, settings={"state_dir": None}, flags=["--replace"])
    agent.start(wait=False)
    assert agent.wait(30) == 2
    assert agent.log() == "--replace: needs a state_dir, where the running agent is found\n"


def test_without_replace_a_second_agent_is_an_error_as_ever(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        second = Agent(tmp_path / "second", postgres, settings={**agent.settings})
        second.start(wait=False)
        assert second.wait(30) == 1
        assert second.log() == f"listen: {agent.host}:{agent.port}: Address already in use\n"
        agent.replace()  # who was there first can still be replaced
        assert agent.get("/primary").status == 200


def test_all_but_the_name_may_change(tmp_path: Path, postgres: Node, free_port: Callable[[], int]) -> None:
    gone, new, socket_path = free_port(), free_port(), tmp_path / "control"
    settings = {"checks": {"listen": f"127.0.0.1:{gone}"}, "control": {"socket": str(socket_path)}}
    with Agent(tmp_path, postgres, settings=settings, agent_check=True) as agent:
        agent.wait_for("/primary", 200)
        assert agent.post("/maintenance", {"on": True}).status == 200
        agent.wait_for("/primary", 503, "maintenance")
        agent.change({"checks": {"listen": f"127.0.0.1:{new}"}, "tags": {"zone": "az2"}, "drain": "4s"})
        agent.replace()
        assert agent.get("/primary").reason == "maintenance"  # it knows, though nothing of it was in its file
        assert agent.get("/patroni").json["tags"] == {"zone": "az2"}
        with socket.create_connection(("127.0.0.1", new), 5):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gone), 5).close()
        agent.post("/maintenance", {"on": False})
        agent.wait_for("/primary", 200)
        with socket.create_connection((agent.host, agent.check_port), 5) as check:
            check.sendall(b"primary\n")
            assert check.recv(100) == b"up\n"
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(socket_path))
            control.sendall(b"GET /primary HTTP/1.0\r\n\r\n")
            assert control.recv(100).startswith(b"HTTP/1.0 200 ")
        assert agent.stop() == 0


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        pytest.param(
            {"cluster": "other"}, 1, "--replace: pg1 of cluster main runs here, and not pg1 of", id="cluster"
        ),
        pytest.param(
            {"checks": {"listen": "192.0.2.1:1"}},
            1,
            "checks.listen: 192.0.2.1:1: Cannot assign",
            id="address",
        ),
        pytest.param({"drain": "soon"}, 2, "drain: want a duration", id="duration"),
        pytest.param(
            {"postgres": {"dsn": "postgresql://nobody@127.0.0.1:1/postgres"}},
            1,
            "--replace: PostgreSQL answers the running agent, and not this one: PostgreSQL is down",
            id="dsn",
        ),
    ],
)
def test_what_is_wrong_with_the_new_one_leaves_the_old_one(
    tmp_path: Path, postgres: Node, change: dict[str, object], code: int, why: str
) -> None:
    with Agent(tmp_path, postgres) as agent, watched(agent, tmp_path) as seen:
        agent.change(change)
        old = agent.replace(wait=False)
        assert agent.wait(60) == code
        assert why in agent.log()
        assert old.poll() is None
    assert [one for one in seen if one.status != 200] == []


def test_one_with_another_secret_does_not_take_over(tmp_path: Path, streaming: Cluster) -> None:
    with agents_beside(tmp_path, streaming.nodes, {"peer": {"secret": SECRET}}) as (one, two):
        one.wait_for("/primary", 200)
        until(lambda: one.status()["members"]["heard"] == 2, 10, "they hear each other")
        one.change({"peer": {"secret": "another secret, of which nobody knows"}})
        old = one.replace(wait=False)
        assert one.wait(60) == 1
        assert "--replace: pg2 answers the running agent, and not this one: " in one.log()
        assert old.poll() is None
        assert one.get("/primary").status == 200
        assert two.status()["alarms"] == []


# Death.


@pytest.mark.parametrize(
    ("stage", "how"),
    [
        ("welcomed", "die"),
        ("rehearsed", "die"),
        ("taking", "die"),
        ("knowing", "die"),
        ("knowing", "stay"),
        ("knowing", "leave"),
    ],
)
def test_a_successor_that_fails_before_the_commit_changes_nothing(
    tmp_path: Path, postgres: Node, stage: str, how: str
) -> None:
    with Agent(tmp_path, postgres) as agent, watched(agent, tmp_path) as seen:
        with other("successor", agent.state_dir, agent.name, stage, how):
            until(lambda: "this agent goes on" in agent.log(), 30, "it goes on")
        agent.replace()
    assert [one for one in seen if one.status != 200] == []


@pytest.mark.parametrize("stage", ["having", "committed"])
def test_a_successor_that_dies_at_the_commit_leaves_one_that_serves(
    tmp_path: Path, postgres: Node, stage: str
) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        with other("successor", agent.state_dir, agent.name, stage, "die") as process:
            process.wait(30)
        if stage == "committed":
            until(lambda: "starting anew" in agent.log(), 30, "it starts anew")
        agent.wait_answering()
        agent.wait_for("/primary", 200)
        assert agent.stop() == 0  # under its old process id


def test_a_successor_that_hangs_after_the_commit_ends_both(tmp_path: Path, postgres: Node) -> None:
    """It may serve one day, so the old one must not: whoever watches over it starts another."""
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        with other("successor", agent.state_dir, agent.name, "committed", "stay"):
            assert agent.wait(30) == 1
        assert "does not say that it serves" in agent.log()


def test_the_running_agent_killed_while_the_next_one_gets_ready(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        old = agent.replace(wait=False)
        until(lambda: f"process {agent.pid} gets ready" in agent.log(), 30, "it gets ready")
        old.kill()
        agent.wait_for("/primary", 200, timeout=30)
        assert "is gone: process" in agent.log()
        agent.replace()
        assert agent.stop() == 0


@pytest.mark.parametrize("stage", ["greeted", "welcoming", "still"])
def test_an_agent_that_dies_while_it_hands_over_is_followed_by_a_restart(
    tmp_path: Path, postgres: Node, stage: str
) -> None:
    """What it had told is forgotten, and its listening socket never closes."""
    agent = Agent(tmp_path, postgres, flags=["--replace"])
    address = f"{agent.host}:{agent.port}"
    with other("predecessor", agent.state_dir, address, stage, "die", until_listening=True), agent:
        if stage != "greeted":
            assert "is gone: process" in agent.log()
        agent.wait_for("/primary", 200)
        assert agent.stop() == 0


def test_an_agent_that_is_frozen_is_not_taken_for_dead(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres, flags=["--replace"])
    address = f"{agent.host}:{agent.port}"
    with other("predecessor", agent.state_dir, address, "greeted", "stay", until_listening=True):
        agent.start(wait=False)
        assert agent.wait(60) == 1
    assert "runs here: no word of the other side within 10 s; it may be frozen" in agent.log()


@contextmanager
def watched(agent: Agent, folder: Path) -> Iterator[list[Sample]]:
    """Every answer to GET /primary from its first 200 to the end of the block, which are there after it."""
    agent.wait_for("/primary", 200)
    sampler, seen = Sampler((), agent.host, agent.port, folder / "samples"), list[Sample]()
    until(lambda: bool(sampler.samples()), 10, "it is sampled")
    try:
        yield seen
    finally:
        seen += sampler.stop()


@contextmanager
def other(
    side: str, state_dir: Path, what: str, stage: str, how: str, *, until_listening: bool = False
) -> "Iterator[subprocess.Popen[str]]":
    """The other side, played up to a stage."""
    command = [sys.executable, "-m", "tests.bed.succession", side, str(state_dir), what, stage, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            expected = "listens" if until_listening else "there"
            assert process.stdout.readline().strip() == expected
            yield process
        finally:
            process.kill()
