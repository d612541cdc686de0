"""check-patroni, the monitoring plugin for Patroni from PyPI, against agents: it must not see a difference.

What it cannot ask here needs a DCS: cluster_config_has_changed reads /config, which holds Patroni's
dynamic configuration; node_is_leader --is-standby-leader and node_is_pending_restart ask for states
that this cluster never has, and get an honest no.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from healthagent.demo.binaries import Binaries
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.postgres import until
from healthagent.server.patroni import COMPATIBLE_WITH
from tests.bed.agent import Agent, agents_beside

pytestmark = pytest.mark.live

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3


def check(agent: Agent, *arguments: str) -> tuple[int, str]:
    """Exit code and first line of check_patroni."""
    command = [sys.executable, "-m", "check_patroni", "-e", agent.url, "--timeout", "10", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    return ran.returncode, (ran.stdout + ran.stderr).splitlines()[0]


@pytest.fixture(scope="module")
def cluster(binaries: Binaries, template: Template) -> Iterator[Cluster]:
    with Cluster(binaries, 3, template=template) as made:
        made.nodes[0].configure(synchronous_standby_names="pg2")
        yield made


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[list[Agent]]:
    """pg1 serves, pg2 is its sync and pg3 its async replica."""
    with agents_beside(tmp_path_factory.mktemp("agents"), cluster.nodes) as started:
        started[0].wait_for("/primary", 200)
        started[1].wait_for("/sync", 200)
        started[2].wait_for("/async", 200)
        yield started


@pytest.mark.parametrize(
    ("arguments", "codes"),
    [
        pytest.param(["node_is_alive"], (OK,), id="alive"),
        pytest.param(["node_is_primary"], (OK, CRITICAL, CRITICAL), id="primary"),
        pytest.param(["node_is_leader"], (OK, CRITICAL, CRITICAL), id="leader"),
        pytest.param(["node_is_leader", "--is-standby-leader"], (CRITICAL,), id="no standby leader"),
        pytest.param(["node_is_replica"], (CRITICAL, OK, OK), id="replica"),
        pytest.param(["node_is_replica", "--max-lag", "1MB"], (CRITICAL, OK, OK), id="replica within a lag"),
        pytest.param(["node_is_replica", "--is-sync"], (CRITICAL, OK, CRITICAL), id="sync replica"),
        pytest.param(["node_is_replica", "--is-async"], (CRITICAL, CRITICAL, OK), id="async replica"),
        pytest.param(["node_is_pending_restart"], (OK,), id="no pending restart"),
        pytest.param(["node_patroni_version", "--patroni-version", COMPATIBLE_WITH], (OK,), id="version"),
        pytest.param(["node_tl_has_changed", "--timeline", "1"], (OK,), id="timeline"),
        pytest.param(["node_tl_has_changed", "--timeline", "2"], (CRITICAL,), id="another timeline"),
        pytest.param(["cluster_has_leader"], (OK,), id="leader of the cluster"),
        pytest.param(["cluster_has_replica", "-w", "2:", "-c", "1:"], (OK,), id="replicas"),
        pytest.param(["cluster_has_replica", "-c", "3:"], (CRITICAL,), id="not three replicas"),
        pytest.param(["cluster_has_replica", "--max-lag", "1MB", "-w", "2:"], (OK,), id="near replicas"),
        pytest.param(["cluster_has_replica", "--sync-warning", "1:"], (OK,), id="a sync replica"),
        pytest.param(["cluster_has_replica", "--sync-critical", "2:"], (CRITICAL,), id="not two sync"),
        pytest.param(["cluster_node_count", "-w", "3:", "-c", "3:"], (OK,), id="members"),
        pytest.param(["cluster_node_count", "--healthy-warning", "3:"], (OK,), id="healthy members"),
        pytest.param(["cluster_is_in_maintenance"], (OK,), id="no maintenance"),
        pytest.param(["cluster_has_scheduled_action"], (OK,), id="no scheduled action"),
    ],
)
def test_a_healthy_cluster(agents: list[Agent], arguments: list[str], codes: tuple[int, ...]) -> None:
    """One code for each agent, or for the first one where all know the same."""
    with ThreadPoolExecutor() as side_by_side:
        answers = list(side_by_side.map(lambda agent: check(agent, *arguments), agents[: len(codes)]))
    assert tuple(code for code, _ in answers) == codes, answers


def test_what_needs_a_dcs_is_said_to_be_absent(agents: list[Agent]) -> None:
    assert agents[0].get("/config").status == 404
    code, said = check(agents[0], "cluster_config_has_changed", "--hash", "x")
    assert code == UNKNOWN, said


def test_maintenance_is_seen(agents: list[Agent]) -> None:
    assert agents[2].post("/maintenance", {"on": True}).status == 200
    agents[2].wait_for("/replica", 503, "maintenance")
    assert check(agents[2], "cluster_is_in_maintenance")[0] == CRITICAL
    assert check(agents[2], "node_is_replica")[0] == CRITICAL
    assert agents[2].post("/maintenance", {"on": False}).status == 200
    agents[2].wait_for("/replica", 200)


def test_a_failover_is_seen_by_all(agents: list[Agent], cluster: Cluster, tmp_path: Path) -> None:
    """Last in this file: it changes the cluster."""
    old, new, sibling = cluster.nodes
    state = str(tmp_path / "timeline")
    assert check(agents[1], "node_tl_has_changed", "--state-file", state, "--save")[0] in (OK, CRITICAL)
    assert check(agents[1], "node_tl_has_changed", "--state-file", state)[0] == OK
    old.kill9()
    agents[0].wait_for("/primary", 503, "postgres_down")
    for agent in agents:
        agent.wait_for("/liveness", 200)
    assert check(agents[0], "node_is_primary")[0] == CRITICAL
    assert check(agents[0], "node_is_alive")[0] == OK
    new.promote()
    sibling.follow(new)
    new.wait_streaming(sibling)
    agents[1].wait_for("/primary", 200, timeout=30)
    agents[2].wait_for("/async", 200)
    assert check(agents[1], "node_tl_has_changed", "--state-file", state)[0] == CRITICAL
    until(
        lambda: all(check(agent, "cluster_has_leader")[0] == OK for agent in agents),
        10.0,
        "all hear that it serves",
    )
    for agent in agents:
        assert check(agent, "cluster_has_replica", "-w", "1:")[0] == OK
        assert check(agent, "cluster_node_count", "--healthy-warning", "3:")[0] == WARNING
