"""The bed of the live tests: clusters start, stream, break and mend as asked, and leave nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from healthagent.demo import processes
from healthagent.demo.binaries import Binaries, PostgresFailed, drop_root, environment
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.postgres import Node, Place, until
from tests.conftest import StartCluster

CHECKOUT = Path(__file__).parents[2]

pytestmark = pytest.mark.live

TIMELINE = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"


def writes(node: Node) -> None:
    """Make a node write; raises PostgresFailed if it does not take writes."""
    node.psql("CREATE TABLE IF NOT EXISTS written (); INSERT INTO written DEFAULT VALUES")


def test_a_primary_takes_writes_and_knows_the_agent_as_monitor_only(postgres: Node) -> None:
    writes(postgres)
    granted = "SELECT roleid::regrole FROM pg_auth_members WHERE member = 'healthagent'::regrole"
    assert postgres.psql(granted, user="healthagent") == [("pg_monitor",)]
    with pytest.raises(PostgresFailed, match="permission denied"):
        postgres.psql("SELECT rolpassword FROM pg_authid", user="healthagent")


def test_two_standbys_stream_and_replay(start_cluster: StartCluster) -> None:
    primary, first, second = start_cluster(3).nodes
    assert primary.followers() == {"pg2", "pg3"}
    writes(primary)
    for standby in (first, second):
        standby.wait_replayed(primary)
        assert standby.psql("SELECT count(*) FROM written") == [("1",)]
    with pytest.raises(PostgresFailed, match="read-only"):
        writes(first)


def test_another_standby_can_join_behind_a_standby(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2)
    third = cluster.add_standby(cluster["pg2"])
    assert cluster["pg2"].followers() == {third.name}


def test_promote_opens_the_next_timeline_and_the_sibling_can_follow(start_cluster: StartCluster) -> None:
    old, new, sibling = start_cluster(3).nodes
    new.promote()
    assert new.psql(TIMELINE) == [("00000002",)]
    assert old.psql(TIMELINE) == [("00000001",)]
    sibling.follow(new)
    new.wait_streaming(sibling)


def test_an_old_primary_that_went_on_is_rewound_and_streams(start_cluster: StartCluster) -> None:
    old, new = start_cluster(2).nodes
    new.promote()
    writes(old)
    writes(new)
    old.rewind(new)
    new.wait_streaming(old)
    with pytest.raises(PostgresFailed, match="read-only"):
        writes(old)


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_stop_ends_all_processes_and_start_brings_the_node_back(streaming: Cluster, mode: str) -> None:
    primary, replica = streaming.nodes
    replica.stop(mode)  # type: ignore[arg-type]  # the three words of pg_ctl, as parameters
    assert not replica.pids()
    assert not replica.is_running()
    replica.start()
    primary.wait_streaming(replica)


def test_kill9_leaves_no_process_and_the_node_starts_again(streaming: Cluster) -> None:
    primary, _ = streaming.nodes
    writes(primary)
    primary.kill9()
    assert not primary.pids()
    primary.start()
    assert primary.psql("SELECT count(*) FROM written") == [("1",)]


def test_a_frozen_node_answers_nobody_until_it_thaws(postgres: Node) -> None:
    postgres.freeze()
    with pytest.raises(PostgresFailed, match="did not answer"):
        postgres.psql("SELECT 1", timeout=0.5)
    assert postgres.is_running()
    postgres.thaw()
    assert postgres.psql("SELECT 1") == [("1",)]


def test_a_frozen_postmaster_still_streams_to_its_replica(streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    primary.freeze_postmaster()
    with pytest.raises(PostgresFailed, match="did not answer"):
        primary.psql("SELECT 1", timeout=0.5)
    received = "SELECT status FROM pg_stat_wal_receiver WHERE last_msg_receipt_time > now() - interval '1 s'"
    replica.configure(wal_receiver_status_interval=1)
    until(lambda: replica.psql(received) == [("streaming",)], 10, "the replica hears from the frozen primary")


def test_settings_of_one_node_and_of_all(start_cluster: StartCluster) -> None:
    places = [Place("a"), Place("b", settings={"recovery_min_apply_delay": "7s"})]
    first, second = start_cluster(places, settings={"max_connections": 20}).nodes
    assert second.psql("SHOW recovery_min_apply_delay") == [("7s",)]
    assert [node.psql("SHOW max_connections") for node in (first, second)] == [[("20",)], [("20",)]]
    first.configure(default_transaction_read_only="on")
    until(lambda: first.psql("SHOW default_transaction_read_only") == [("on",)], 5, "the reload took effect")


def test_a_node_that_cannot_start_says_why(postgres: Node) -> None:
    postgres.stop()
    postgres.configure(shared_buffers="nonsense")
    with pytest.raises(PostgresFailed, match='invalid value for parameter "shared_buffers"'):
        postgres.start()


def test_a_role_with_a_password_must_give_it(binaries: Binaries) -> None:
    with (
        Template(binaries, passwords={"healthagent": "open sesame"}) as template,
        Cluster(binaries, 1, template=template) as cluster,
    ):
        [node] = cluster.nodes
        psql = [str(binaries.client / "psql"), "-XwAtq", "-c", "SELECT 1", "-d"]
        said = {}
        for password in ("open%20sesame", "open"):
            command = [*psql, node.dsn(password=password)]
            ran = subprocess.run(command, env=environment(binaries.client), capture_output=True, text=True)
            said[password] = ran.stdout + ran.stderr
        assert said["open%20sesame"] == "1\n"
        assert "password authentication failed" in said["open"]


def test_closing_ends_frozen_and_orphaned_processes_and_removes_the_files(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster(3)
    frozen, orphaned, _ = cluster.nodes
    orphaned.freeze()
    orphaned.signal(signal.SIGKILL)  # the postmaster ends, its stopped children never notice
    frozen.freeze()
    assert orphaned.pids()
    cluster.close()
    assert not processes.server_pids(cluster.root)
    assert not cluster.root.exists()


STARTS_A_CLUSTER = """
import os, signal, sys
from healthagent.demo.binaries import Binaries, find_binaries
from healthagent.demo.cluster import Cluster
binaries = find_binaries()
assert isinstance(binaries, Binaries), binaries
with Cluster(binaries, 2) as cluster:
    cluster.nodes[0].freeze()
    print(cluster.root, flush=True)
    if "be killed" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def run_cluster(command: list[str], *arguments: str, code: Path, binaries: Binaries) -> tuple[int, Path]:
    """Start a cluster in a program of its own; its exit status, and where the cluster was."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(code)}
    environment["HEALTHAGENT_DEMO_POSTGRES"] = str(binaries.bin)
    command = [*command, "-c", STARTS_A_CLUSTER, *arguments]
    ran = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True)
    assert ran.stdout, ran.stderr
    return ran.returncode, Path(ran.stdout.strip())


def test_a_killed_program_leaves_neither_servers_nor_files(binaries: Binaries) -> None:
    status, root = run_cluster([sys.executable], "be killed", code=CHECKOUT, binaries=binaries)
    assert status == -signal.SIGKILL
    until(lambda: not root.exists(), 10, f"{root} is removed")
    assert not processes.server_pids(root)


def test_a_user_who_is_not_root_can_run_it(binaries: Binaries) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        code = Path(folder, "code")  # the checkout may be in a folder that only root may enter
        shutil.copytree(CHECKOUT / "healthagent", code / "healthagent")
        status, root = run_cluster([*drop_root(), python_for_all()], code=code, binaries=binaries)
    assert status == 0
    assert not root.exists()


def python_for_all() -> str:
    """A Python that the servers' user can run: ours, or Debian's if ours is in root's home."""
    ours = os.path.realpath(sys.executable)
    tried = subprocess.run([*drop_root(), ours, "-c", ""], capture_output=True)
    return ours if tried.returncode == 0 else "/usr/bin/python3"
