"""What the manifests run, run: how the volumes are filled, who follows whom, what the agents say."""

import subprocess
from collections.abc import Iterator

import pytest

from healthagent.demo.binaries import Binaries, give_to_server
from healthagent.demo.postgres import until
from tests.bed.pods import LIMIT, SECRETS, Pod, Pods

pytestmark = pytest.mark.live


@pytest.fixture
def pods(binaries: Binaries) -> Iterator[Pods]:
    with Pods(binaries) as made:
        yield made


def ready(pod: Pod, path: str = "/readiness") -> None:
    pod.agent.wait_answering()
    pod.agent.wait_for(path, 200, timeout=LIMIT)


def says(process: "subprocess.Popen[str]", words: str) -> None:
    """Read on until these words come."""
    assert process.stdout is not None
    heard = []
    for line in process.stdout:
        heard.append(line)
        if words in line:
            return
    pytest.fail(f"it ended without {words!r}: {''.join(heard)}")


@pytest.mark.timeout(240)
def test_a_cluster_begins_fails_over_and_gets_a_lost_node_back(pods: Pods) -> None:
    first, second, third = pods
    # all at once, as podManagementPolicy: Parallel starts them; the standbys wait for the primary
    waiting = [pod.preparing() for pod in (second, third)]
    try:
        for process in waiting:
            says(process, "waiting: no other node answers, and INITDB_ON is '127.0.0.1', not 127.0.0.")
        assert "beginning a new database cluster" in first.prepare()
        first.start()
        for pod, process in zip((second, third), waiting, strict=True):
            said, _ = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, said
            assert f"copying from {first.host}" in said
            pod.start()
    finally:
        for process in waiting:
            process.kill()
            process.communicate()
    ready(first, "/primary")  # which needs a majority of agents, and so the standbys that it has made
    for pod in (second, third):
        ready(pod, "/replica")
    identifier = first.psql("SELECT system_identifier FROM pg_control_system()")

    first.kill()
    second.psql("SELECT pg_promote()")
    ready(second, "/primary")
    # the other one finds the new primary by itself, on the new timeline
    until(lambda: third.psql("SELECT received_tli FROM pg_stat_wal_receiver") == "2", LIMIT, "it follows")
    ready(third, "/replica")

    # its volume is lost, and INITDB_ON still names it: no second cluster begins while another node answers
    first.lose_volume()
    assert f"copying from {second.host}" in first.prepare()
    first.start()
    ready(first, "/replica")
    assert first.psql("SELECT system_identifier FROM pg_control_system()") == identifier
    assert "nothing to do" in second.prepare()
    for secret in SECRETS.values():
        assert all(secret not in pod.agent.log() for pod in pods)


@pytest.mark.timeout(240)
def test_what_nobody_can_decide_is_waited_for(pods: Pods) -> None:
    first, second, third = pods
    with third.preparing(INITDB_ON="") as process:
        says(process, "waiting: no other node answers, and INITDB_ON is '', not 127.0.0.3")
        first.prepare()
        # half a copy, as a container leaves it that was killed, is begun anew
        half = second.data / "pgdata.new"
        half.mkdir()
        give_to_server(half)
        (half / "PG_VERSION").write_text("15\n")
        first.start()
        second.prepare()
        second.start()
        process.communicate(timeout=LIMIT)
    third.lose_volume()
    ready(second)
    first.kill()
    with third.preparing() as process:
        says(process, "waiting: there are standbys and no primary: promote one")
        process.kill()
    first.start()
    ready(first, "/primary")
    second.psql("SELECT pg_promote()")
    with third.preparing() as process:
        says(process, f"waiting: more than one node is a primary ({first.host} {second.host}): stop all but")
        process.kill()
    assert not (third.data / "pgdata").exists()


def test_a_volume_with_something_else_is_not_touched(pods: Pods) -> None:
    pod = pods[0]
    (pod.data / "pgdata").mkdir()
    (pod.data / "pgdata" / "precious").write_text("data")
    with pod.preparing() as process:
        said, _ = process.communicate(timeout=LIMIT)
    assert (process.returncode, "is not empty, and no PostgreSQL" in said) == (1, True)
    assert (pod.data / "pgdata" / "precious").read_text() == "data"
