"""The Grafana dashboard asks for metrics that there are, on a grid that Grafana can draw."""

import json
import re
import subprocess
import sys
from itertools import combinations
from typing import Any

import pytest

from tests.bed.dashboard import DASHBOARD, ROOT, asks, panels, queries
from tests.bed.families import families

UNITS = {"short", "bytes", "s", "Bps", "ops", "reqps", "percentunit"}
LABELS = {
    "cluster",
    "name",
    "node",
    "peer",
    "reason",
    "kind",
    "code",
    "path",
    "result",
    "instance",
    "action",
    "status",
}


def test_it_is_what_the_table_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "dashboard.py", "--check"], timeout=30)
    assert done.returncode == 0, "run `python scripts/dashboard.py`"


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.title)
def test_every_metric_of_a_query_is_one_that_there_is(query: Any) -> None:
    used = set(re.findall(r"(?:healthagent|pgpool2)_\w+", query.expression))
    assert used, "it asks for nothing of ours"
    assert used <= families()


@pytest.mark.parametrize(
    "name",
    [
        "primary",
        "replica",
        "verdict",
        "role",
        "cluster_primaries",
        "timeline",
        "served_high_water_mark",
        "replication_lag_bytes",
        "replication_lag_seconds",
        "peer_up",
        "members_heard",
        "probe_duration_seconds_bucket",
        "evidence_age_seconds",
        "checks_total",
        "haproxy_sessions",
        "alarms",
        "fence_runs_total",
        "pgpool_role_mismatch",
    ],
)
def test_what_must_be_seen_at_a_glance(name: str) -> None:
    assert any(re.search(rf"\bhealthagent_{name}\b", query.expression) for query in queries())


def test_every_panel_has_a_number_of_its_own() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))


def test_no_two_panels_overlap_and_none_leaves_the_grid() -> None:
    places = [panel["gridPos"] for panel in panels()]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


@pytest.mark.parametrize("panel", asks(), ids=lambda panel: str(panel["title"]))
def test_every_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["description"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    for target in panel["targets"]:
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= LABELS
        chosen = set(re.findall(r"\$(\w+)", target["expr"]))
        assert chosen <= {"cluster", "node", "__rate_interval"}
        assert "cluster" in chosen, "it would show other clusters too"


def test_what_can_be_chosen() -> None:
    names = [one["name"] for one in json.loads(DASHBOARD.read_text())["templating"]["list"]]
    assert names == ["datasource", "cluster", "node"]
