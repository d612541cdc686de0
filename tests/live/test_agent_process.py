"""The agent as a process: what it says when it cannot start, how it stops, reloads, and what it remembers."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from healthagent.demo.cluster import Cluster
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent, agents_beside
from tests.bed.command import ran

pytestmark = pytest.mark.live

BUSY = 1.0  # seconds by which a machine that does other things may be late


def fails(agent: Agent) -> tuple[int, str]:
    """Start an agent that cannot start: its exit code and what it says."""
    agent.start(wait=False)
    try:
        return agent.wait(15), agent.log()
    finally:
        agent.kill()


def test_a_port_in_use(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres)
    with socket.socket() as taken:
        taken.bind((agent.host, agent.port))
        taken.listen()
        code, said = fails(agent)
    assert code == 1
    assert said == f"listen: {agent.host}:{agent.port}: Address already in use\n"


def test_an_address_that_is_not_ours(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres, settings={"checks": {"listen": "192.0.2.1:8009"}})
    code, said = fails(agent)
    assert code == 1
    assert said == "checks.listen: 192.0.2.1:8009: Cannot assign requested address\n"


def test_a_host_without_an_address(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres, settings={"agent_check": {"listen": "no-such-host.invalid:8009"}})
    code, said = fails(agent)
    assert code == 1
    assert said.startswith("agent_check.listen: no-such-host.invalid:8009: ")
    assert "Traceback" not in said


def test_a_file_in_the_place_of_the_control_socket(tmp_path: Path, postgres: Node) -> None:
    (tmp_path / "precious").write_text("data")
    agent = Agent(tmp_path, postgres, settings={"control": {"socket": str(tmp_path / "precious")}})
    code, said = fails(agent)
    assert (code, (tmp_path / "precious").read_text()) == (1, "data")
    assert said == f"control.socket: {tmp_path}/precious: Address already in use\n"


def test_a_corrupt_state_file_is_an_error_at_start(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres)
    agent.state_dir.mkdir(parents=True)
    (agent.state_dir / "state.json").write_text('{"cluster": "main", "high_wat')
    code, said = fails(agent)
    assert code == 1
    assert said.startswith(f"{agent.state_dir}/state.json: is corrupt")
    assert "Traceback" not in said


def test_events_outlive_a_restart_and_a_corrupt_file_of_them_is_no_reason_not_to_start(
    tmp_path: Path, postgres: Node
) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        agent.restart()
        agent.wait_for("/primary", 200)
        kinds = [(event["seq"], event["kind"]) for event in agent.get("/events").json["events"]]
        assert [seq for seq, _ in kinds] == list(range(1, len(kinds) + 1))
        assert [kind for _, kind in kinds if kind in ("start", "stop")] == ["start", "stop", "start"]
        agent.stop()
        (agent.state_dir / "events.json").write_text('{"boot_id": "')
        agent.start()
        agent.wait_for("/primary", 200)
        assert agent.get("/events?limit=500").json["first"] == 1
        assert f"events: {agent.state_dir}/events.json is corrupt" in agent.log()


def test_a_state_dir_that_cannot_be_made_is_an_error_at_start(tmp_path: Path, postgres: Node) -> None:
    (tmp_path / "file").write_text("")
    agent = Agent(tmp_path, postgres, settings={"state_dir": str(tmp_path / "file" / "state")})
    code, said = fails(agent)
    assert code == 1
    assert said.startswith(f"state_dir: {tmp_path}/file/state cannot be created: Not a directory.")


def test_a_state_dir_that_takes_no_file_keeps_a_new_primary_out(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres, settings={"state_dir": "/proc/self/fdinfo"}) as agent:
        agent.wait_for("/primary", 503, "state_unsaved")
        until(lambda: bool(agent.status()["alarms"]), 10, "the file was tried and an alarm says so")
        [alarm] = agent.status()["alarms"]
        assert alarm.startswith("state: /proc/self/fdinfo/state.json: cannot be written")
        until(lambda: alarm in agent.log(), 10, "the alarm is in the log")
        assert agent.get("/events").json["events"][0]["kind"] == "start"
        assert agent.get("/health").status == 200
        assert agent.stop() == 0


def test_without_a_state_dir_it_serves_and_forgets(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres, settings={"state_dir": None}) as agent:
        agent.wait_for("/primary", 200)
        assert agent.post("/maintenance", {"on": True}).status == 200
        agent.wait_for("/primary", 503, "maintenance")
        agent.restart()
        agent.wait_for("/primary", 200)


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        pytest.param(lambda _node: None, "primary", id="well"),
        pytest.param(Node.freeze, "postgres_stale", id="frozen, and so refused"),
        pytest.param(Node.stop, "postgres_down", id="down, and so refused"),
    ],
)
def test_sigterm_says_stopping_and_ends(
    tmp_path: Path, postgres: Node, before: Callable[[Node], None], reason: str
) -> None:
    with Agent(tmp_path, postgres, agent_check=True) as agent:
        agent.wait_for("/primary", 200)
        before(postgres)
        agent.wait_for("/primary", 200 if reason == "primary" else 503, reason)
        assert_goodbye(agent)


def test_sigterm_amid_a_freeze_that_is_not_noticed_yet(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres, agent_check=True) as agent:
        agent.wait_for("/primary", 200)
        postgres.freeze()
        assert_goodbye(agent)


def test_a_witness_says_stopping_too(tmp_path: Path) -> None:
    peers = {"pg1": "http://127.0.0.1:1"}
    with Agent(tmp_path, name="w1", peers=peers, settings={"witness": True}, agent_check=True) as agent:
        agent.wait_for("/primary", 503, "witness")
        assert_goodbye(agent)


def assert_goodbye(agent: Agent) -> None:
    """SIGTERM: at once 503 `stopping` to everybody who asks, a probe of HAProxy's included, then the end."""
    began = time.monotonic()
    agent.signal(signal.SIGTERM)
    agent.wait_for("/primary", 503, "stopping", timeout=0.5 + BUSY)
    assert time.monotonic() - began < 0.5 + BUSY
    assert agent.agent_check("primary") == "down #stopping: the agent is shutting down\n"
    assert agent.get("/liveness").status == 200
    assert agent.wait() == 0
    assert 1 <= time.monotonic() - began < 5  # who asks every second has heard it


def test_a_second_sigterm_ends_at_once(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        agent.signal(signal.SIGTERM)
        agent.wait_for("/primary", 503, "stopping")
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < 1 + BUSY


def test_an_agent_that_serves_nobody_ends_sooner(tmp_path: Path, postgres: Node) -> None:
    postgres.stop()
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 503, "postgres_down")
        began = time.monotonic()
        assert agent.stop() == 0
        assert 1 <= time.monotonic() - began < 2 + BUSY


def test_a_kept_connection_hears_of_the_end(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        with socket.create_connection((agent.host, agent.port), 5) as client:
            client.sendall(b"GET /primary HTTP/1.1\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            agent.signal(signal.SIGTERM)
            agent.wait_for("/primary", 503, "stopping")
            client.sendall(b"GET /primary HTTP/1.1\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 503 ")
            assert client.recv(4096) == b""
        assert agent.wait() == 0


def test_sighup_takes_what_can_change_and_names_what_cannot(tmp_path: Path, streaming: Cluster) -> None:
    _, node = streaming.nodes
    with Agent(tmp_path, node, settings={"tags": {"zone": "az1"}}) as agent:
        agent.wait_for("/replica", 200)
        agent.reload(
            tags={"zone": "az2", "noloadbalance": True},
            replica={"max_lag": "1MB"},
            log={"level": "debug"},
            cluster="other",
            postgres={"max_age": "1600ms"},
        )
        agent.wait_for("/replica", 503, "no_load_balance")
        assert agent.get("/health?tag_zone=az2").status == 200
        assert agent.get("/patroni").json["tags"] == {"zone": "az2", "noloadbalance": True}
        log = agent.log()
        assert "reload: cluster takes effect only after a restart\n" in log
        assert "reloaded: postgres.max_age, replica.max_lag, tags, log.level\n" in log
        node.freeze()
        until(lambda: agent.get("/health").status == 503, 5, "the server is stale")
        assert "at most 1.6 s is fresh" in agent.get("/health").json["verdict"]["detail"]
        node.thaw()


def test_a_wrong_configuration_changes_nothing(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        agent.reload(replica={"max_lag": "1MiB"}, drian="3s")
        until(lambda: "reload refused" in agent.log(), 5, "the refusal is logged")
        assert "replica.max_lag" in agent.log()
        assert "drian: unknown setting (did you mean drain?)" in agent.log()
        assert agent.get("/primary").status == 200


def test_a_peer_can_be_added_and_removed_by_sighup(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        agent.reload(peers=[{"name": "pg2", "url": "http://127.0.0.1:1"}])
        until(lambda: agent.status()["members"]["configured"] == 2, 5, "pg2 is a member")
        until(lambda: agent.status()["peers"][0]["silent_for"] is not None, 5, "pg2 was asked")
        assert agent.get("/primary").status == 200  # undisturbed: what is unknown of pg2 is no rival
        agent.reload(peers=[])
        until(lambda: agent.status()["members"]["configured"] == 1, 5, "pg2 is no member any more")


def test_maintenance_outlives_a_restart(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        told = ran("maintenance", "on", "--url", agent.url)
        assert (told.returncode, told.stdout) == (0, '{"on":true,"seconds":null}\n')
        agent.wait_for("/primary", 503, "maintenance")
        agent.restart()
        assert agent.get("/primary").reason in ("starting_up", "maintenance")
        agent.wait_for("/primary", 503, "maintenance")
        agent.kill()
        agent.start()
        agent.wait_for("/primary", 503, "maintenance")
        assert agent.get("/cluster").json["pause"] is True
        assert ran("maintenance", "off", "--url", agent.url).returncode == 0
        agent.wait_for("/primary", 200)


def test_maintenance_for_a_while_ends_by_itself_across_a_restart(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        began = time.monotonic()
        assert agent.post("/maintenance", {"on": True, "seconds": 8}).json == {"on": True, "seconds": 8.0}
        assert '"maintenance":{' in (agent.state_dir / "state.json").read_text().replace(" ", "")
        agent.wait_for("/primary", 503, "maintenance")
        agent.kill()
        agent.start()
        if time.monotonic() - began < 7:
            assert 0 < agent.status()["maintenance"]["remaining"] <= 8 - (time.monotonic() - began) + 0.5
        agent.wait_for("/primary", 200)
        assert 8 <= time.monotonic() - began < 10 + BUSY
        assert agent.status()["maintenance"] is None


def test_maintenance_that_no_disk_has_taken_is_in_force_and_says_so(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres, settings={"state_dir": "/proc/self/fdinfo"}) as agent:
        agent.wait_for("/primary", 503, "state_unsaved")
        with ThreadPoolExecutor() as beside:
            asked = beside.submit(agent.post, "/maintenance", {"on": True})
            agent.wait_for("/primary", 503, "maintenance")  # nobody else waits for the disk
            told = asked.result()
        assert told.status == 200
        assert told.json["not_saved"].startswith(
            "in force, but a restart would forget it: /proc/self/fdinfo/state"
        )


def test_a_promotion_shows_its_timeline_at_once_and_in_the_history(
    tmp_path: Path, streaming: Cluster
) -> None:
    old, new = streaming.nodes
    with agents_beside(tmp_path, streaming.nodes) as (one, two):
        one.wait_for("/primary", 200)
        two.wait_for("/replica", 200)
        old.kill9()
        one.wait_for("/primary", 503, "postgres_down")
        new.promote()
        body = two.wait_for("/primary", 200).json
        assert (body["timeline"], body["role"]) == (2, "primary")
        [switch] = two.get("/history").json
        assert (switch[0], switch[4]) == (1, "pg2")
        two.restart()
        assert two.get("/history").json == [switch]
        old.start()
        one.wait_for("/primary", 503, "stale_timeline")
        assert two.get("/primary").status == 200


def test_the_file_limit_is_raised(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres)
    try:
        agent.start(wait=False)
        subprocess.run(["prlimit", f"--pid={agent.pid}", "--nofile=256:4096"], check=True)
        agent.wait_answering()
        limits = Path(f"/proc/{agent.pid}/limits").read_text()
        [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3:5] == ["4096", "4096"]
    finally:
        agent.kill()


def test_control_over_a_unix_socket(tmp_path: Path, postgres: Node) -> None:
    path = tmp_path / "control"
    with Agent(tmp_path, postgres, settings={"control": {"socket": str(path)}}) as agent:
        agent.wait_for("/primary", 200)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            body = b'{"on": true}'
            head = (
                f"POST /maintenance HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            client.sendall(head.encode() + b"\r\n\r\n" + body)
            assert client.recv(4096).startswith(b"HTTP/1.0 200 ")
        agent.wait_for("/primary", 503, "maintenance")
        agent.restart()  # over the socket that it has left behind
        assert os.path.exists(path)


def test_an_operator_forces_a_verdict(tmp_path: Path, streaming: Cluster) -> None:
    """An old primary whose successor is gone for good: on for a while, off at once, and back to the rules."""
    old, new = streaming.nodes
    with agents_beside(tmp_path, streaming.nodes) as (one, two):
        one.wait_for("/primary", 200)
        refused = ran("override", "primary", "on", "--for", "1m", "--why", "x", "--url", two.url)
        assert (refused.returncode, "no primary here" in refused.stdout) == (1, True)
        two.wait_for("/replica", 200)
        old.kill9()
        one.wait_for("/primary", 503, "postgres_down")
        new.promote()
        two.wait_for("/primary", 200)
        old.start()
        one.wait_for("/primary", 503, "stale_timeline")
        words = ("override", "primary", "on", "--for", "1m", "--why", "pg2 burns", "--who", "alice")
        refused = ran(*words, "--url", one.url)
        assert (refused.returncode, "pg2 answers 200 on /primary" in refused.stdout) == (1, True)
        assert ran("maintenance", "on", "--why", "it burns", "--url", two.url).returncode == 0
        until(lambda: ran(*words, "--url", one.url).returncode == 0, 10, "pg2 is heard as not serving")
        one.wait_for("/primary", 200, "forced_on")
        status = one.status()
        assert (status["override"]["who"], status["override"]["by_rules"]["reason"]) == (
            "alice",
            "stale_timeline",
        )
        assert (
            "override: /primary is forced on: rules are set aside, by alice (pg2 burns)" in status["alarms"]
        )
        assert 'healthagent_override{cluster="main",name="pg1",verdict="on"} 1.0' in one.get("/metrics").json
        two.wait_for("/primary", 503, "maintenance")
        one.restart()  # forgets a word that permits
        one.wait_for("/primary", 503, "stale_timeline")
        assert ran("override", "primary", "off", "--for", "1h", "--url", one.url).returncode == 0
        one.restart()
        until(lambda: one.status()["override"]["primary"] == "off", 10, "a restart keeps one that forbids")
        assert ran("override", "end", "--url", one.url).returncode == 0
        kinds = [(event["reason"], event["who"], event["why"]) for event in one.get("/events").json["events"]]
        assert ("primary on", f"alice at {one.host}", "pg2 burns") in kinds
