"""A real Prometheus scrapes real agents, and the shipped alerts go off on a real split brain."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from healthagent.demo.cluster import Cluster
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import until
from tests.bed.agent import Agent, agents_beside, together
from tests.bed.dashboard import queries
from tests.bed.prometheus import Prometheus

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

RULES = Path(__file__).parents[2] / "monitoring" / "prometheus" / "healthagent.rules.yml"
PATIENCE = 60.0  # seconds, for each step; they take one or two
# panels that may be empty while all is well, or without HAProxy, pgpool and a lease
MAY_BE_EMPTY = {
    "Failed and refused questions",
    "Failed probes",
    "Sessions of HAProxy",
    "pgpool writes where the agents say",
    "Backends under a wrong role",
    "pgpool's status of each backend",
    "Actions and errors",
    "Fence runs and lease",
}


def hurried(rules: str) -> str:
    """The shipped rules with every `for` of two seconds, looked at each half second."""
    rules, changed = re.subn(r"^( +for): \w+$", r"\1: 2s", rules, flags=re.MULTILINE)
    assert changed > 15
    return rules.replace("interval: 10s", "interval: 500ms")


def scraping(folder: Path, agents: Iterable[Agent]) -> Prometheus:
    configuration: dict[str, Any] = {
        "rule_files": ["healthagent.rules.yml"],
        "scrape_configs": [
            {
                "job_name": "healthagent",
                "scrape_interval": "500ms",
                "scrape_timeout": "500ms",
                "honor_labels": True,
                "static_configs": [{"targets": [agent.url.removeprefix("http://") for agent in agents]}],
            }
        ],
    }
    return Prometheus(folder, configuration, {"healthagent.rules.yml": hurried(RULES.read_text())})


@pytest.fixture
def prompt(tmp_path: Path) -> Callable[..., Agent]:
    """Agents that do not wait long for peers."""

    def make(node: Any, cluster: str, **settings: object) -> Agent:
        return Agent(
            tmp_path / cluster,
            node,
            settings={"cluster": cluster, "start_alone_after": "3s", **settings},
        )

    return make


def test_a_split_brain_is_told_of_whether_the_agents_hear_each_other_or_not(
    streaming: Cluster, tmp_path: Path, prompt: Callable[..., Agent]
) -> None:
    old, new = streaming.nodes
    hearing = [prompt(node, "main") for node in (old, new)]
    nobody = [{"name": "other", "url": f"http://127.0.0.1:{free_port()}"}]
    cut = [prompt(node, "cut", peers=nobody) for node in (old, new)]  # each is alone with its PostgreSQL
    with together(hearing):
        try:
            for agent in cut:
                agent.start(wait=False)
            for agent in cut:
                agent.wait_answering()
            with scraping(tmp_path / "prometheus", [*hearing, *cut]) as prometheus:
                watch(prometheus, hearing, cut, old, new)
        finally:
            for agent in cut:
                agent.kill()


def watch(prometheus: Prometheus, hearing: list[Agent], cut: list[Agent], old: Any, new: Any) -> None:
    def alerts(cluster: str) -> set[tuple[str, str]]:
        return prometheus.alerts(cluster=cluster)

    def told(cluster: str, name: str, state: str) -> Callable[[], bool]:
        return lambda: (name, state) in alerts(cluster)

    hearing[0].wait_for("/primary", 200)
    cut[0].wait_for("/primary", 200)
    until(lambda: len(prometheus.query("healthagent_primary")) == 4, PATIENCE, "all four are scraped")
    until(lambda: not alerts("main"), PATIENCE, "nothing is wrong with the two that hear each other")
    assert not {name for name, _ in alerts("cut")} & {"HealthagentSeveralPrimaries", "HealthagentTwoServe"}

    new.promote()
    # pending is seen too, unless this thread stood still for the two seconds of `for`
    until(told("main", "HealthagentSeveralPrimaries", "pending"), PATIENCE, "pending")
    until(told("main", "HealthagentSeveralPrimaries", "firing"), PATIENCE, "firing")
    said = prometheus.description("HealthagentSeveralPrimaries")
    assert "Verdicts on writes: " in said
    # two nodes and no third to say who is right: both refuse
    until(told("main", "HealthagentRefusedPrimary", "firing"), PATIENCE, "refused primaries are named")
    until(told("main", "HealthagentNoPrimary", "firing"), PATIENCE, "no node may take writes")
    assert shown(prometheus, "What each node does", "main") == [1.0, 1.0]
    # agents that hear nobody count no second primary; Prometheus does
    assert {one.value for one in prometheus.query('healthagent_cluster_primaries{cluster="cut"}')} == {1.0}
    until(told("cut", "HealthagentSeveralPrimaries", "firing"), PATIENCE, "counted over the agents")
    until(told("cut", "HealthagentTwoServe", "firing"), PATIENCE, "both answer 200")
    assert shown(prometheus, "What each node does", "cut") == [3.0, 3.0]
    assert shown(prometheus, "PostgreSQL primaries", "cut") == [2.0]

    old.stop()
    hearing[1].wait_for("/primary", 200, timeout=PATIENCE)
    resolved = ("HealthagentSeveralPrimaries", "HealthagentTwoServe", "HealthagentNoPrimary")
    until(
        lambda: not {name for name, _ in alerts("main") | alerts("cut")} & {*resolved},
        PATIENCE,
        "it is over when one of the two is stopped",
    )


def shown(prometheus: Prometheus, title: str, cluster: str) -> list[float]:
    """The numbers of one panel of the dashboard, of this cluster."""
    [query] = [query for query in queries() if query.title == title]
    return sorted(one.value for one in prometheus.query(query.asked) if one.labels["cluster"] == cluster)


def test_the_dashboard_asks_what_prometheus_understands_and_has(streaming: Cluster, tmp_path: Path) -> None:
    with agents_beside(tmp_path, streaming.nodes) as agents, scraping(tmp_path / "p", agents) as prometheus:
        for agent, path in zip(agents, ("/primary", "/replica"), strict=True):
            agent.wait_for(path, 200)
        said = "UP; name=pg_read/pg2; node=lb1; scur=3/5"
        checked = agents[1].get("/replica", X_Haproxy_Server_State=said)
        assert checked.status == 200
        # four scrapes: rates need two, and stale ones of the start must be over
        until(lambda: len(prometheus.query("count_over_time(up[1m]) > 4")) == 2, PATIENCE, "scraped")
        until(lambda: shown(prometheus, "What each node does", "main") == [2.0, 3.0], PATIENCE, "both serve")
        empty = {query.title for query in queries() if not prometheus.query(query.asked)}
        assert empty <= MAY_BE_EMPTY
        [sessions] = prometheus.query('healthagent_haproxy_sessions{server="pg_read/pg2"}')
        assert (sessions.labels["name"], sessions.value) == ("pg2", 3.0)
        assert shown(prometheus, "PostgreSQL primaries", "main") == [1.0]
        assert shown(prometheus, "Sessions on refused nodes", "main") == [0.0]
        assert shown(prometheus, "Members not heard", "main") == [0.0]
