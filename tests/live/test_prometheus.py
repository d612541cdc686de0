"""A real Prometheus scrapes real agents, and the shipped alerts go off on a real split brain."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from healthagent.demo.cluster import Cluster
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import until
from tests.bed.agent import Agent, together
from tests.bed.prometheus import Prometheus

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

RULES = Path(__file__).parents[2] / "monitoring" / "prometheus" / "healthagent.rules.yml"
PATIENCE = 60.0  # seconds, for each step; they take one or two


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
    # agents that hear nobody count no second primary; Prometheus does
    assert {one.value for one in prometheus.query('healthagent_cluster_primaries{cluster="cut"}')} == {1.0}
    until(told("cut", "HealthagentSeveralPrimaries", "firing"), PATIENCE, "counted over the agents")
    until(told("cut", "HealthagentTwoServe", "firing"), PATIENCE, "both answer 200")

    old.stop()
    hearing[1].wait_for("/primary", 200, timeout=PATIENCE)
    resolved = ("HealthagentSeveralPrimaries", "HealthagentTwoServe", "HealthagentNoPrimary")
    until(
        lambda: not {name for name, _ in alerts("main") | alerts("cut")} & {*resolved},
        PATIENCE,
        "it is over when one of the two is stopped",
    )
