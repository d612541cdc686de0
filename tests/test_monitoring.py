"""The alert rules say only what exists, and each has a section in the runbook."""

import re
from pathlib import Path

import yaml

from healthagent.board import Board, Identity
from healthagent.core.view import Memory, Policy
from healthagent.metrics import Metrics, Sources

ROOT = Path(__file__).parent.parent
RULES = ROOT / "monitoring" / "prometheus" / "healthagent.rules.yml"
RULE = re.compile(r"^ {6}- alert: (\w+)$", re.MULTILINE)


def rules() -> list[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return found


def test_every_metric_of_a_rule_is_one_that_the_agent_has() -> None:
    board = Board(Identity("pg1", "main", "one"), Policy(), Memory(started_at=0))
    body = Metrics(board, lambda: 0.0, Sources()).render(None)[0].decode()
    families = set(re.findall(r"^# TYPE (\w+)", body, re.MULTILINE))
    for rule in rules():
        for name in re.findall(r"healthagent_\w+", str(rule["expr"])):
            assert name in families, f"{rule['alert']} asks for {name}"


def test_every_alert_has_its_section_in_the_runbook() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    anchors = {f"docs/runbook.md#{heading.lower().replace(' ', '-')}" for heading in headings}
    assert {rule["annotations"]["runbook"] for rule in rules()} <= anchors


def test_every_rule_is_tested_or_trivial() -> None:
    tested = (RULES.parent / "healthagent.rules.test.yml").read_text()
    untested = [name for name in RULE.findall(RULES.read_text()) if f"alertname: {name}" not in tested]
    # these compare one gauge with a constant
    assert untested == [
        "HealthagentStateUnsaved",
        "HealthagentPostgresDown",
        "HealthagentNewConnectionsFail",
        "HealthagentAlarm",
        "HealthagentFenceRan",
    ]
