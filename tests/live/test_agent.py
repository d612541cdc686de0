"""The agent on a real PostgreSQL: what it answers while the server is well, frozen, killed, full or wrong."""

import http.client
import os
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from healthagent.demo.binaries import Binaries
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent, agents_beside
from tests.conftest import StartCluster

pytestmark = pytest.mark.live

OURS = "application_name = 'healthagent'"
MAX_AGE = 2.0  # seconds, the default
READY_FOR_QUERY = b"Z\0\0\0\x05I"
BUSY = 1.0  # seconds by which a machine that does other things may be late


def took(agent: Agent, path: str, status: int, timeout: float = 15.0) -> float:
    """Seconds until `path` has this status, asked every few milliseconds."""
    began = time.monotonic()
    while agent.get(path).status != status:
        assert time.monotonic() - began < timeout, (
            f"{path} is not {status} after {timeout:g} s\n{agent.log()}"
        )
        time.sleep(0.003)
    return time.monotonic() - began


def backends(node: Node) -> int:
    """Sessions of the agent at the server."""
    [(count,)] = node.psql(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS}")
    return int(count)


def test_a_primary_alone_serves_and_stops(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        status, headers, body = agent.wait_for("/primary", 200)
        assert (status, body["role"], headers["X-Healthagent-Reason"]) == (200, "primary", "primary")
        assert agent.get("/replica").reason == "not_replica"
        assert agent.get("/metrics").json.startswith("# HELP ")
        assert agent.stop() == 0
    log = agent.log().splitlines()
    assert [line.split("Z ", 1)[1] for line in log if "starts" not in line][-3:] == [
        "INFO stopping",
        "INFO primary: 503 stopping: the agent is shutting down",
        "INFO replica: 503 stopping: the agent is shutting down",
    ]
    assert not [line for line in log if " INFO " not in line]


def test_of_two_nodes_one_serves_writes_and_the_other_reads(tmp_path: Path, streaming: Cluster) -> None:
    with agents_beside(tmp_path, streaming.nodes) as (primary, replica):
        primary.wait_for("/primary", 200)
        replica.wait_for("/replica", 200)
        assert replica.get("/primary").reason == "not_primary"
        replica.wait_for("/async", 200)
        assert replica.get("/sync").reason == "not_sync"


def test_answers_come_from_memory_while_postgresql_is_frozen(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        postgres.freeze()
        agent.wait_for("/primary", 503, "postgres_stale")
        kept = http.client.HTTPConnection(agent.host, agent.port, timeout=5)
        figures = {
            "one connection": timed(lambda: ask(kept)),
            "new connections": timed(lambda: ask_anew(agent)),
        }
        kept.close()
        for what, (p50, p99, worst) in figures.items():
            print(f"\nfrozen, {what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {worst:.2f} ms")
            assert p50 < 5
            assert p99 < 100  # 5 on a machine that does nothing else
        assert agent.get("/liveness").status == 200
        assert agent.get("/health").reason == "postgres_stale"


def timed(question: Callable[[], None]) -> tuple[float, float, float]:
    """Median, 99th percentile and maximum of 1,000 questions, in milliseconds."""
    durations = []
    for _ in range(1000):
        began = time.perf_counter()
        question()
        durations.append((time.perf_counter() - began) * 1e3)
    return statistics.median(durations), statistics.quantiles(durations, n=100)[98], max(durations)


def ask(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/primary")
    assert connection.getresponse().read()


def ask_anew(agent: Agent) -> None:
    with socket.create_connection((agent.host, agent.port), 5) as client:
        client.sendall(b"OPTIONS /primary HTTP/1.0\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.0 503 ")


def test_a_killed_postmaster_is_noticed_at_once(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        os.kill(next(iter(postmaster(postgres))), signal.SIGKILL)
        late = took(agent, "/primary", 503)
        print(f"\nkill -9 of the postmaster: 503 after {late * 1e3:.0f} ms")
        assert late < 0.2 + BUSY
        assert agent.get("/primary").reason == "postgres_down"
        assert agent.get("/primary").json["state"] == "stopped"
        postgres.kill9()
        postgres.start()
        agent.wait_for("/primary", 200)


def postmaster(node: Node) -> set[int]:
    return {int((node.data / "postmaster.pid").read_text().split()[0])}


def test_a_frozen_server_is_stale_within_max_age(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        postgres.freeze()
        late = took(agent, "/primary", 503)
        print(f"\nfrozen: 503 after {late:.2f} s")
        assert late < MAX_AGE + 0.5 + BUSY
        refused = agent.get("/primary").json["verdict"]
        assert refused["reason"] == "postgres_stale"
        assert "PostgreSQL did not answer within 1 s" in refused["detail"]
        postgres.thaw()
        agent.wait_for("/primary", 200)


def test_a_frozen_postmaster_admits_nobody_new(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres, settings={"postgres": {"reconnect_every": "1s"}}) as agent:
        agent.wait_for("/primary", 200)
        postgres.freeze_postmaster()
        late = took(agent, "/primary", 503)
        assert 2 < late < 5 + BUSY  # two attempts, each a second after the other's second
        for path in ("/primary", "/health", "/read-only", "/readiness"):
            assert agent.get(path).reason == "no_new_connections"
        assert agent.get("/primary").json["verdict"]["detail"].startswith("2 new connections in a row failed")
        postgres.thaw()
        agent.wait_for("/primary", 200)


def test_a_server_that_starts_up_is_not_down(tmp_path: Path, postgres: Node) -> None:
    postgres.stop()
    postgres.become_standby_of(postgres)  # of nobody: itself is not there to stream from
    (postgres.data / "backup_label").write_text(
        "START WAL LOCATION: 9/28000028 (file 000000010000000900000028)\n"
        "CHECKPOINT LOCATION: 9/28000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n"
    )
    (postgres.data / "backup_label").chmod(0o644)
    (postgres.data / "standby.signal").touch()
    postgres.start(wait=False)
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/health", 503, "postgres_starting")
        assert agent.get("/primary").json["state"] == "starting"
        assert agent.get("/replica").reason == "postgres_starting"


def test_a_wrong_password(tmp_path: Path, binaries: Binaries) -> None:
    with (
        Template(binaries, passwords={"healthagent": "right-password"}) as template,
        Cluster(binaries, 1, template=template) as cluster,
    ):
        agent = Agent(tmp_path, cluster.nodes[0], settings={"postgres": {"password": "wrong-password"}})
        with agent:
            agent.wait_for("/health", 503, "auth_failed")
            assert "password authentication failed" in agent.get("/primary").json["verdict"]["detail"]
            agent.stop()
            agent.change({"postgres": {"password": "right-password"}})
            agent.start()
            agent.wait_for("/primary", 200)
        for secret in ("wrong-password", "right-password"):
            assert secret not in agent.log()


def test_a_role_that_may_see_less_is_told_what_is_missing(tmp_path: Path, streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    primary.psql("REVOKE pg_monitor FROM healthagent")
    replica.wait_replayed(primary)
    with agents_beside(tmp_path, streaming.nodes) as (at_primary, at_replica):
        at_primary.wait_for("/primary", 200)
        assert "pg_stat_replication" in " ".join(at_primary.status()["alarms"])
        at_replica.wait_for("/replica", 503, "privilege_missing")
        assert "healthagent sql" in at_replica.log()
        primary.psql("GRANT pg_monitor TO healthagent")
        at_replica.wait_for("/replica", 200)
        until(lambda: not at_replica.status()["alarms"], 15, "the alarm ends")


def test_all_slots_taken(tmp_path: Path, start_cluster: StartCluster) -> None:
    settings = {"max_connections": 8, "superuser_reserved_connections": 3, "max_wal_senders": 0}
    [node] = start_cluster(1, settings={**settings, "wal_level": "minimal"}).nodes
    reconnecting = {"postgres": {"reconnect_every": "1s"}}
    with ExitStack() as holders, Agent(tmp_path, node, settings=reconnecting) as agent:
        for _ in range(4):  # with the agent's own five of five
            holders.enter_context(hold(node))
        agent.wait_for("/primary", 200)
        until(
            lambda: any("no connection slot" in alarm for alarm in agent.status()["alarms"]), 10, "an alarm"
        )
        for _ in range(20):
            assert agent.get("/primary").status == 200  # its own connection lives
            time.sleep(0.1)
        agent.kill()
        holders.enter_context(hold(node))
        agent.start()
        agent.wait_for("/primary", 503, "no_connection_slot")
        holders.close()
        agent.wait_for("/primary", 200)


def hold(node: Node) -> socket.socket:
    """Log in as an ordinary role, and stay; the slot that another has left may be free only soon."""
    began = time.monotonic()
    while (client := log_in(node)) is None:
        assert time.monotonic() - began < 5, "no slot came free in 5 s"
        time.sleep(0.05)
    return client


def log_in(node: Node) -> socket.socket | None:
    """Try once; PostgreSQL says that there is no slot only after it has let the user in."""
    client = socket.create_connection((node.host, node.port), 5)
    words = b"user\0healthagent\0database\0postgres\0\0"
    client.sendall((len(words) + 8).to_bytes(4, "big") + (196608).to_bytes(4, "big") + words)
    said = b""
    while part := client.recv(4096):
        said += part
        if said.endswith(READY_FOR_QUERY):
            return client
    client.close()
    return None


def test_a_crash_loop_is_never_served_in_between(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        agent.wait_for("/primary", 200)
        for _ in range(5):
            os.kill(next(iter(postmaster(postgres))), signal.SIGKILL)
            assert took(agent, "/primary", 503) < 0.2 + BUSY
            postgres.kill9()
            postgres.start()
            agent.wait_for("/primary", 200)
        assert backends(postgres) <= 2
        assert agent.log().count("postgres_down") <= 2 * 5


def test_connections_do_not_leak(tmp_path: Path, postgres: Node) -> None:
    """100 rounds in which the held connection is killed or freezes; a few of the whole server."""
    settings = {
        "postgres": {"interval": "50ms", "timeout": "100ms", "max_age": "300ms", "reconnect_every": "1s"}
    }
    with Agent(tmp_path, postgres, settings=settings) as agent:
        agent.wait_for("/primary", 200)
        before = len(os.listdir(f"/proc/{agent.pid}/fd"))
        for turn in range(100):
            if turn % 10 == 0:
                postgres.freeze()
                agent.wait_for("/primary", 503, "postgres_stale")
                postgres.thaw()
            elif turn % 10 == 5:
                postgres.kill9()
                agent.wait_for("/primary", 503)
                postgres.start()
            else:
                postgres.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
            agent.wait_for("/primary", 200)
        until(lambda: backends(postgres) <= 2, 5, "old sessions are gone")
        until(lambda: len(os.listdir(f"/proc/{agent.pid}/fd")) <= before + 2, 5, "old sockets are gone")
        assert agent.stop() == 0
        until(lambda: backends(postgres) == 0, 5, "no session is left")


def test_another_system_after_a_restore(tmp_path: Path, start_cluster: StartCluster) -> None:
    [node] = start_cluster(1).nodes
    [other] = start_cluster(1, same_system=False).nodes
    [(identifier,)] = node.psql("SELECT system_identifier FROM pg_control_system()")
    with Agent(tmp_path, node, settings={"system_identifier": int(identifier)}) as agent:
        agent.wait_for("/primary", 200)
        node.stop()
        other.stop()
        node.data.rename(node.data.with_name("old"))
        other.data.rename(node.data)
        node.start()
        agent.wait_for("/primary", 503, "system_id_mismatch")
        assert identifier in agent.get("/primary").json["verdict"]["detail"]
        agent.stop()
        agent.change({"system_identifier": None})
        agent.start()
        agent.wait_for("/primary", 200)  # not pinned: whatever is restored here is this cluster
        node.stop()


def test_lag_refuses_at_once_and_comes_back_after_the_hold(tmp_path: Path, streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    settings = {"replica": {"max_lag": "1MB", "hold": "2s"}}
    with agents_beside(tmp_path, streaming.nodes, settings) as (_, agent):
        agent.wait_for("/replica", 200)
        replica.psql("SELECT pg_wal_replay_pause()")
        primary.psql("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
        refused = agent.wait_for("/replica", 503, "lagging").json
        assert "at most 1048576 bytes" in refused["verdict"]["detail"]
        assert agent.get("/replica?lag=1GB").reason == "lagging"  # asked in addition to what is configured
        assert agent.get("/readiness?lag=1GB").status == 200
        assert agent.get("/readiness?lag=0&mode=write").status == 200
        assert agent.get("/readiness").reason == "lagging"
        assert agent.get("/patroni").json["xlog"]["paused"] is True
        replica.psql("SELECT pg_wal_replay_resume()")
        replica.wait_replayed(primary)
        agent.wait_for("/readiness", 200)
        began = time.monotonic()
        agent.wait_for("/replica", 200)
        assert 1.0 < time.monotonic() - began < 2.5 + BUSY


def test_time_lag_is_nothing_while_nothing_is_written(tmp_path: Path, streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    with agents_beside(tmp_path, streaming.nodes) as (_, agent):
        primary.psql("CREATE TABLE first ()")  # the age of a commit is known only after one was replayed
        replica.wait_replayed(primary)
        agent.wait_for("/replica?lag=100ms", 200)
        replica.psql("SELECT pg_wal_replay_pause()")
        primary.psql("CREATE TABLE written ()")
        agent.wait_for("/replica?lag=1s", 503, "lagging")
        assert agent.get("/replica?lag=1h").status == 200
        assert agent.get("/readiness?lag=1s").reason == "lagging"
        agent.wait_for("/readiness?lag=1s&mode=write", 200)
        replica.psql("SELECT pg_wal_replay_resume()")
        agent.wait_for("/replica?lag=1s", 200)


def test_read_only_by_alter_system_and_by_alter_database(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres, settings={"postgres": {"reconnect_every": "1s"}}) as agent:
        agent.wait_for("/primary", 200)
        for where in ("SYSTEM", "DATABASE postgres"):
            postgres.psql(f"ALTER {where} SET default_transaction_read_only = on")
            postgres.signal(signal.SIGHUP)
            agent.wait_for("/primary", 503, "read_only", timeout=1 + 0.5 + 3 * BUSY)
            assert agent.get("/health").status == 200
            writable(postgres, f"ALTER {where} RESET default_transaction_read_only")
            postgres.signal(signal.SIGHUP)
            agent.wait_for("/primary", 200)


def writable(node: Node, statement: str) -> None:
    """Run one statement in a session that may write, whatever the default is."""
    options = {**os.environ, "PGOPTIONS": "-c default_transaction_read_only=off"}
    conninfo = f"host={node.socket_dir} port={node.port} user=postgres dbname=postgres"
    subprocess.run(
        [str(node.binaries.client / "psql"), "-Xq", "-d", conninfo, "-c", statement],
        env=options,
        check=True,
        capture_output=True,
        timeout=20,
    )
