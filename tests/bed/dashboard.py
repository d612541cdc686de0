"""The Grafana dashboard, taken apart: its panels, and its queries as Prometheus is asked."""

import json
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "monitoring" / "grafana" / "healthagent.json"


class Query(NamedTuple):
    title: str
    expression: str  # with Grafana's variables

    @property
    def asked(self) -> str:
        """As it is asked for all clusters and nodes."""
        chosen = self.expression.replace("$cluster", ".*").replace("$node", ".*")
        return chosen.replace("$__rate_interval", "1m")


def panels() -> list[dict[str, Any]]:
    """All panels, the headings of rows too."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def asks() -> list[dict[str, Any]]:
    """The panels that ask for something."""
    return [panel for panel in panels() if panel["type"] != "row"]


def queries() -> list[Query]:
    """Every query of every panel, in their order."""
    return [Query(panel["title"], target["expr"]) for panel in asks() for target in panel["targets"]]
