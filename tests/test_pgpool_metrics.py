"""The bridge's metrics: the names that dashboards and alerts rely on, and promtool's opinion."""

import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from healthagent.core.model import Role
from healthagent.pgpool.metrics import BridgeCollector, Counts
from healthagent.pgpool.model import Backend, Kind, LiveInfo, Observed, Says, Status, Told
from healthagent.pgpool.readiness import Look
from healthagent.pgpool.server import answer

LOOK = Look(
    100.0,
    [
        Observed(
            "pg1",
            Told(Says.REPLICA, Role.REPLICA),
            Backend(0, "db1", 5432, Status.UP, is_primary=True),
            LiveInfo(True, Role.REPLICA, 0.0),
        ),
        Observed(
            "pg2",
            Told(Says.PRIMARY, Role.PRIMARY),
            Backend(1, "db2", 5432, Status.WAITING, is_primary=False),
            LiveInfo(True, Role.PRIMARY, 168.0),
        ),
        Observed("backend 2", Told(), Backend(2, "db3", 5432, Status.DOWN, is_primary=False)),
    ],
    ["something"],
)


def scrape(look: Look | None) -> str:
    registry = CollectorRegistry()
    counts = Counts(polls=7, pcp_errors=2)
    counts.actions[Kind.PROMOTE] = 1
    registry.register(BridgeCollector(lambda: look, counts, lambda: 101.5, 8.0))
    return generate_latest(registry).decode()


@pytest.mark.parametrize(
    "line",
    [
        "healthagent_pgpool_ready 0.0",
        "healthagent_pgpool_up 1.0",
        "healthagent_pgpool_role_mismatch 2.0",
        "healthagent_pgpool_alarms 1.0",
        "healthagent_pgpool_last_poll_age_seconds 1.5",
        "healthagent_pgpool_polls_total 7.0",
        "healthagent_pgpool_pcp_errors_total 2.0",
        'healthagent_pgpool_actions_total{action="promote"} 1.0',
        'healthagent_pgpool_actions_total{action="detach"} 0.0',
        'healthagent_pgpool_role{backend="0",hostname="db1",name="pg1",port="5432",role="primary"} 1.0',
        'healthagent_pgpool_pg_role{backend="0",hostname="db1",name="pg1",port="5432",role="standby"} 1.0',
        'pgpool2_pool_nodes_status{hostname="db2",port="5432",role="standby"} 1.0',
        'pgpool2_pool_nodes_status{hostname="db3",port="5432",role="standby"} 0.0',
        'pgpool2_pool_nodes_replication_delay{hostname="db2",port="5432",role="standby"} 168.0',
        "pgpool2_up 1.0",
    ],
)
def test_a_stale_primary_in_pgpool_shows(line: str) -> None:
    assert line in scrape(LOOK).splitlines()


@pytest.mark.parametrize(
    "look", [pytest.param(LOOK, id="full"), pytest.param(None, id="before the first look")]
)
def test_promtool_finds_nothing(look: Look | None) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("no promtool is installed: run `apt-get install prometheus` as root", pytrace=False)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=scrape(look), text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/ready", 503, id="not ready"),
        pytest.param("/liveness", 200, id="alive all the same"),
        pytest.param("/metrics", 200, id="metrics"),
        pytest.param("/metrics/", 200, id="a slash at the end"),
        pytest.param("/primary", 404, id="that is the agent's"),
    ],
)
def test_paths(path: str, status: int) -> None:
    assert answer(path, "", lambda: (False, "why"), CollectorRegistry()).status == status
