"""The scripts of fencing/: each run for real, by hand and by an agent's fence.command."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from healthagent.demo.binaries import PostgresFailed, environment
from healthagent.demo.cluster import Cluster
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent, agents_beside
from tests.bed.certificates import Certificates
from tests.bed.fencing import FENCING, as_owner, stop_arguments, tools_in, variables, write
from tests.bed.pod_api import PodApi, serving
from tests.conftest import StartCluster

pytestmark = pytest.mark.live

TOKEN = "not-to-be-seen-in-any-process-list"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    return tools_in(tmp_path / "tools")


def by_hand(script: str, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(FENCING / script), *arguments], env=env, capture_output=True, text=True, timeout=60
    )


def conninfo(node: Node) -> str:
    return f"host={node.socket_dir} port={node.port} user=postgres dbname=postgres"


def test_an_old_primary_that_returns_is_stopped_by_the_hook(
    tmp_path: Path, streaming: Cluster, tools: Path
) -> None:
    old, new = streaming.nodes
    command = [str(FENCING / "stop-postgres.sh"), *stop_arguments(old)]
    with agents_beside(tmp_path, streaming.nodes, {"fence": {"command": command, "after": "1s"}}) as agents:
        one, two = agents
        one.wait_for("/primary", 200)
        one.environment = variables(old, tools)
        one.restart()  # with the tools on its PATH
        one.wait_for("/primary", 200)
        two.wait_for("/replica", 200)
        old.kill9()
        one.wait_for("/primary", 503, "postgres_down")
        new.promote()
        two.wait_for("/primary", 200, timeout=30)
        old.start()
        until(lambda: not old.is_running(), 30, "the hook has stopped the old primary")
        one.wait_for("/primary", 503, "postgres_down")
        until(lambda: 'fence_runs_total{cluster="main",name="pg1",result="ok"} 1.0' in metrics(one), 10, "ok")
        assert 'fence_last_exit_status{cluster="main",name="pg1"} 0.0' in metrics(one)
        assert 'result="ok"} 0.0' in metrics(two)
        log = one.log()
        assert "stop-postgres.sh runs because of stale_timeline: this primary is on timeline 1" in log
        assert "is down'\n" in log
        old.rewind(new)  # the follow-up of fencing/README.md: pg_rewind, then a standby
        one.wait_for("/replica", 200)


def metrics(agent: Agent) -> str:
    found = agent.get("/metrics").json
    assert isinstance(found, str)
    return found


def test_stop_says_whether_it_is_down(postgres: Node, tools: Path) -> None:
    env = variables(postgres, tools) | {"HEALTHAGENT_NODE": "pg1", "HEALTHAGENT_REASON": "isolated"}
    stopped = by_hand("stop-postgres.sh", *stop_arguments(postgres), **env)
    assert (stopped.returncode, postgres.is_running()) == (0, False)
    assert "pg1: isolated: " in stopped.stdout
    again = by_hand("stop-postgres.sh", *stop_arguments(postgres), **env)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "stop-postgres.sh: was down already")


def test_a_server_that_takes_no_signal_is_not_called_down(postgres: Node, tools: Path) -> None:
    postgres.freeze()
    env = variables(postgres, tools) | {"FENCE_FAST_SECONDS": "1", "FENCE_IMMEDIATE_SECONDS": "1"}
    tried = by_hand("stop-postgres.sh", *stop_arguments(postgres), **env)
    assert tried.returncode == 1
    assert tried.stdout.endswith(f"the server of {postgres.data} still runs, or pg_ctl may not look at it\n")


def test_a_session_that_ignores_fast_is_ended_by_immediate(postgres: Node, tools: Path) -> None:
    """A frozen backend holds up a fast shutdown; an immediate one kills it after 5 s."""
    [(pid,)] = postgres.psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    os.kill(int(pid), 19)
    env = variables(postgres, tools) | {"FENCE_FAST_SECONDS": "1"}
    tried = by_hand("stop-postgres.sh", *stop_arguments(postgres), **env)
    assert (tried.returncode, postgres.is_running()) == (0, False), tried.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param([], 2, id="nothing"),
        pytest.param(["--unit", "a", "--data", "b"], 2, id="both"),
        pytest.param(["--unit"], 2, id="no value"),
        pytest.param(["--node", "pg1"], 2, id="an unknown word"),
        pytest.param(["--data", "/nowhere"], 1, id="no such directory is not a server that is down"),
    ],
)
def test_stop_with_wrong_words(arguments: list[str], code: int, postgres: Node, tools: Path) -> None:
    bin_folder = ["--bin", str(postgres.binaries.bin)] if arguments[:1] == ["--data"] else []
    ran = by_hand("stop-postgres.sh", *arguments, *bin_folder, **variables(postgres, tools))
    assert ran.returncode == code, ran.stdout


@pytest.mark.parametrize(
    ("stops", "state", "code"),
    [
        pytest.param("exit 0", "inactive", 0, id="stopped"),
        pytest.param("exit 0", "failed", 0, id="killed after its time-out"),
        pytest.param("exit 0", "active", 1, id="said so, and runs"),
        pytest.param("exit 5", "active", 1, id="no such unit, or no right to"),
    ],
)
def test_stop_by_systemd(tmp_path: Path, tools: Path, stops: str, state: str, code: int) -> None:
    write(
        tools / "systemctl",
        f'case "$*" in\n"stop postgresql@15-main") {stops} ;;\n'
        f'"is-active postgresql@15-main") echo {state} ;;\n'
        f'*) echo "systemctl: called with $*" >&2; exit 99 ;;\nesac',
    )
    env = {"PATH": f"{tools}:/usr/bin:/bin"}
    assert by_hand("stop-postgres.sh", "--unit", "postgresql@15-main", **env).returncode == code


def test_read_only_ends_sessions_and_refuses_writes_until_undone(streaming: Cluster, tools: Path) -> None:
    primary, standby = streaming.nodes
    primary.psql("CREATE TABLE t (n int)")
    with session(primary) as open_one:
        [(pid,)] = primary.psql(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
        )
        fenced = by_hand("read-only.sh", *as_owner(), conninfo(primary), **variables(primary, tools))
        assert fenced.returncode == 0, fenced.stdout + fenced.stderr
        assert fenced.stdout.endswith("new sessions are read-only, no older one is left\n")
        assert open_one.wait(10) != 0
        assert primary.psql(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}") == [("0",)]
    with pytest.raises(PostgresFailed, match="read-only transaction"):
        primary.psql("INSERT INTO t VALUES (1)")
    assert primary.followers() == {standby.name}
    undone = by_hand("read-only.sh", "--undo", *as_owner(), conninfo(primary), **variables(primary, tools))
    assert undone.returncode == 0, undone.stderr
    until(lambda: primary.psql("SHOW default_transaction_read_only") == [("off",)], 10, "it is undone")
    primary.psql("INSERT INTO t VALUES (1)")


def test_read_only_says_when_a_database_has_it_otherwise(postgres: Node, tools: Path) -> None:
    postgres.psql("ALTER DATABASE postgres SET default_transaction_read_only = off")
    env = variables(postgres, tools) | {"FENCE_SECONDS": "2"}
    fenced = by_hand("read-only.sh", *as_owner(), conninfo(postgres), **env)
    assert fenced.returncode == 1
    assert "is it set for the role or the database?" in fenced.stdout


def test_read_only_names_prepared_transactions(start_cluster: StartCluster, tools: Path) -> None:
    [postgres] = start_cluster(1, settings={"max_prepared_transactions": 2}).nodes
    postgres.psql("BEGIN; CREATE TABLE t (n int); PREPARE TRANSACTION 'waits'")
    fenced = by_hand("read-only.sh", *as_owner(), conninfo(postgres), **variables(postgres, tools))
    assert fenced.returncode == 0
    assert "1 prepared transactions remain" in fenced.stdout


def test_read_only_of_a_server_that_is_down(postgres: Node, tools: Path) -> None:
    postgres.stop()
    fenced = by_hand("read-only.sh", *as_owner(), conninfo(postgres), **variables(postgres, tools))
    assert (fenced.returncode, "could not be set" in fenced.stdout) == (1, True)


class session:  # reads as a word in `with session(node)`
    """A client that sleeps in the server."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def __enter__(self) -> "subprocess.Popen[bytes]":
        self.client = subprocess.Popen(
            [
                str(self.node.binaries.client / "psql"),
                "-Xq",
                "-d",
                conninfo(self.node),
                "-c",
                "SELECT pg_sleep(600)",
            ],
            env=environment(self.node.binaries.client),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        until(lambda: self.node.psql(asleep) == [("1",)], 10, "the session sleeps")
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.kill()
        self.client.wait()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[PodApi]:
    certificates = Certificates(tmp_path)
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "ca.crt").write_bytes(certificates.ca.read_bytes())
    with serving(PodApi(TOKEN), certificates) as started:
        yield started


def pod(api: PodApi, tmp_path: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    known = {
        "PATH": os.environ["PATH"],
        "SERVICE_ACCOUNT": str(tmp_path / "account"),
        "KUBERNETES_SERVICE_HOST": "localhost",
        "KUBERNETES_SERVICE_PORT": str(api.port),
        "POD_NAME": "pg1",
        "POD_NAMESPACE": "db",
        "POD_UID": api.uid,
    }
    return by_hand("pod.sh", *arguments, **known | env)


def test_a_label_is_taken_off(api: PodApi, tmp_path: Path) -> None:
    ran = pod(api, tmp_path, "unlabel", "role", HEALTHAGENT_REASON="stale_timeline")
    assert ran.returncode == 0, ran.stdout
    assert api.labels == {"app": "postgres"}
    assert ran.stdout == "pod.sh: pg1: stale_timeline: \npod.sh: label role is off\n"
    assert any("curl" in command for command in api.commands)
    assert not [command for command in api.commands if TOKEN in command]


def test_the_pod_is_deleted(api: PodApi, tmp_path: Path) -> None:
    assert pod(api, tmp_path, "delete", GRACE_SECONDS="7").returncode == 0
    assert api.deleted is not None
    assert api.deleted["gracePeriodSeconds"] == 7


@pytest.mark.parametrize(
    ("arguments", "env", "code", "said"),
    [
        pytest.param(
            ["delete"], {"POD_UID": "0000"}, 1, "UID in the precondition", id="the pod that came after"
        ),
        pytest.param(["delete"], {"POD_UID": ""}, 2, "POD_UID must be set", id="no uid"),
        pytest.param(["delete"], {"GRACE_SECONDS": "soon"}, 2, "must be a number", id="no number"),
        pytest.param(["delete"], {"POD_NAME": 'x" '}, 2, "POD_NAME must be set", id="no name of a pod"),
        pytest.param(["unlabel"], {}, 2, "LABEL must be set", id="no label"),
        pytest.param(["unlabel", 'a":1,"b'], {}, 2, "LABEL must be set", id="no label but JSON"),
        pytest.param([], {}, 2, "usage", id="nothing"),
        pytest.param(["unlabel", "role"], {"KUBERNETES_SERVICE_PORT": "1"}, 1, "curl: (7)", id="cut off"),
        pytest.param(["unlabel", "role"], {"SERVICE_ACCOUNT": "/nowhere"}, 1, "curl: (77)", id="no account"),
    ],
)
def test_what_changes_nothing(
    api: PodApi, tmp_path: Path, arguments: list[str], env: dict[str, str], code: int, said: str
) -> None:
    before = dict(api.labels)
    ran = pod(api, tmp_path, *arguments, **env)
    assert (ran.returncode, api.deleted, api.labels) == (code, None, before), ran.stdout
    assert said in ran.stdout
    assert TOKEN not in ran.stdout + ran.stderr


def test_an_account_without_the_right(api: PodApi, tmp_path: Path) -> None:
    api.forbidden = True
    ran = pod(api, tmp_path, "unlabel", "role")
    assert (ran.returncode, "is forbidden" in ran.stdout) == (1, True)


def test_another_authority_is_not_believed(api: PodApi, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "account" / "ca.crt").write_bytes(Certificates(tmp_path / "other").ca.read_bytes())
    ran = pod(api, tmp_path, "delete")
    assert (ran.returncode, "curl: (60)" in ran.stdout) == (1, True)
    assert api.commands == []


def test_the_follow_up_with_repmgr(start_cluster: StartCluster, tools: Path, tmp_path: Path) -> None:
    """`repmgr node rejoin`, as fencing/README.md has it, after the old primary was stopped."""
    cluster = start_cluster(2, settings={"wal_log_hints": "on"})
    if not (cluster.binaries.bin / "repmgr").exists():
        pytest.fail(
            f"no repmgr for {cluster.binaries.bin}: run `apt-get install -y repmgr` as root", pytrace=False
        )
    old, new = cluster.nodes
    for number, node in enumerate(cluster.nodes, start=1):
        (node.socket_dir / "repmgr.conf").write_text(
            f"node_id={number}\nnode_name={node.name}\ndata_directory='{node.data}'\n"
            f"conninfo='host={node.host} port={node.port} user=postgres dbname=postgres connect_timeout=2'\n"
            f"pg_bindir='{node.binaries.bin}'\nrepmgr_bindir='{node.binaries.bin}'\n"
        )

    def repmgr(node: Node, *arguments: str) -> str:
        return node.run("repmgr", "-f", str(node.socket_dir / "repmgr.conf"), *arguments)

    repmgr(old, "primary", "register")
    new.wait_replayed(old)
    repmgr(new, "standby", "register", "--force", "--upstream-node-id=1")
    assert by_hand("stop-postgres.sh", *stop_arguments(old), **variables(old, tools)).returncode == 0
    repmgr(new, "standby", "promote")
    new.psql("CREATE TABLE since_then (n int)")

    source = f"host={new.host} port={new.port} user=postgres dbname=postgres"
    kept = ["--config-files=node.conf", f"--config-archive-dir={old.socket_dir}"]
    said = repmgr(old, "node", "rejoin", "-d", source, "--force-rewind", *kept)
    assert "node 1 is now attached to node 2" in said.lower()
    until(lambda: new.followers() == {"pg1"}, 20, "the old primary streams from the new one")
    until(lambda: old.psql("SELECT pg_is_in_recovery()") == [("t",)], 10, "it is a standby")
