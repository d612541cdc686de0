"""The alert rules ask only for what exists; each has its tests and its section in the runbook."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bed.families import families

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "monitoring" / "prometheus"
[GROUP] = yaml.safe_load((FOLDER / "healthagent.rules.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = GROUP["rules"]
TESTS = {path.name: yaml.safe_load(path.read_text()) for path in FOLDER.glob("tests/*.yml")}
NAMES = [rule["alert"] for rule in RULES]
SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> int:
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([smh])", text))


def asked(name: str) -> Iterator[tuple[str, int, list[object]]]:
    """When the unit tests ask for an alert: the test, the second, and what they expect."""
    for path, document in TESTS.items():
        for test in document["tests"]:
            for case in test["alert_rule_test"]:
                if case["alertname"] == name:
                    yield f"{path}: {test['name']}", seconds(case["eval_time"]), case["exp_alerts"]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_metric_of_a_rule_is_one_that_there_is(rule: dict[str, Any]) -> None:
    words = [str(rule["expr"]), *rule["annotations"].values()]
    used = {name for text in words for name in re.findall(r"healthagent_\w+", text)}
    assert used <= families()


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_alert_says_what_why_and_where_to_read_on(rule: dict[str, Any]) -> None:
    anchors = {
        f"docs/runbook.md#{heading.lower().replace(' ', '-')}"
        for heading in re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    }
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] in anchors
    assert re.search(r"\{\{.*(cluster|instance)", annotations["summary"]), "whose is it?"
    assert rule["labels"]["severity"] in ("page", "warning")
    if rule["alert"] not in ("HealthagentTwoServe", "HealthagentPgpoolMismatch"):  # nobody refuses there
        assert "reason" in annotations["description"].lower() or "Labels.kind" in annotations["description"]


def test_every_section_of_the_runbook_belongs_to_an_alert_and_says_what_to_do() -> None:
    sections = re.split(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)[1:]
    named = {rule["annotations"]["runbook_url"].partition("#")[2] for rule in RULES}
    for heading, text in zip(sections[::2], sections[1::2], strict=True):
        assert heading.lower().replace(" ", "-") in named, heading
        assert len(text.split()) >= 15, f"{heading} helps nobody"


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_alert_is_shown_to_fire_when_due_and_not_before(rule: dict[str, Any]) -> None:
    due = seconds(rule.get("for", "0s"))
    fires = [(test, at) for test, at, alerts in asked(rule["alert"]) if alerts]
    quiet = [(test, at) for test, at, alerts in asked(rule["alert"]) if not alerts]
    assert fires, "no unit test sees it fire"
    for test, at in fires:
        if (test, at - 10) in quiet:  # one evaluation earlier
            assert at >= due
            break
    else:
        pytest.fail("no unit test shows that it is silent one evaluation before it fires")


@pytest.mark.parametrize("name", NAMES)
def test_no_alert_fires_in_the_healthy_cluster(name: str) -> None:
    [healthy] = [test for test in TESTS["healthy.test.yml"]["tests"] if "all well" in test["name"]]
    assert {"alertname": name, "eval_time": "10m", "exp_alerts": []} in healthy["alert_rule_test"]
    used = set(re.findall(r"healthagent_\w+", str(next(r["expr"] for r in RULES if r["alert"] == name))))
    given = {str(series["series"]).partition("{")[0] for series in healthy["input_series"]}
    # what is there only while something is wrong
    assert used - given <= {"healthagent_new_connection_failed"}


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("HealthagentSeveralPrimaries", 60),
        ("HealthagentSeveralPrimariesStay", 330),
        ("HealthagentNoPrimary", 90),
        ("HealthagentDown", 60),
    ],
)
def test_the_times_that_are_promised(name: str, within: int) -> None:
    rule = next(rule for rule in RULES if rule["alert"] == name)
    scrape, evaluation = 5, seconds(GROUP["interval"])
    assert seconds(rule["for"]) + scrape + evaluation <= within
