"""Write monitoring/grafana/healthagent.json from scripts/dashboard.yaml; `--check`: is it current?

Grafana 9.4 or newer reads the file; what is edited in Grafana itself does not come back here. Colours are
those of Okabe and Ito, which everybody can tell apart.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".yaml")
FILE = ROOT / "monitoring" / "grafana" / "healthagent.json"
WIDTH = 24  # of Grafana's grid
COLOURS = {
    "blue": "#0072B2",
    "sky": "#56B4E9",
    "orange": "#E69F00",
    "vermilion": "#D55E00",
    "grey": "#8E8E8E",
}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WORDS = {
    "@node": 'cluster=~"$cluster",name=~"$node"',
    "@cluster": 'cluster=~"$cluster"',
    "@rate": "$__rate_interval",
}
LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True}
TOOLTIP = {"mode": "multi", "sort": "desc"}
OPTIONS: dict[str, dict[str, object]] = {
    "timeseries": {"legend": LEGEND, "tooltip": TOOLTIP},
    "state-timeline": {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.9,
        "legend": LEGEND,
        "tooltip": TOOLTIP,
    },
    "stat": {
        "colorMode": "background",
        "graphMode": "none",
        "textMode": "value_and_name",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "table": {"showHeader": True, "footer": {"show": False}},
}
MATRIX = [
    {
        "id": "groupingToMatrix",
        "options": {"rowField": "name", "columnField": "peer", "valueField": "Value"},
    }
]

Json = dict[str, Any]


def dashboard(rows: list[Json]) -> Json:
    """The whole file."""
    return {
        "uid": "healthagent",
        "title": "healthagent: who may be written to",
        "description": "PostgreSQL clusters as their agents see them.",
        "tags": ["healthagent", "postgresql"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "timezone": "browser",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                },
                choice("cluster", "Cluster", "label_values(healthagent_build_info, cluster)"),
                choice("node", "Node", spelled("label_values(healthagent_build_info{@cluster}, name)")),
            ]
        },
        "annotations": {"list": [ALERTS]},
        "panels": list(panels(rows)),
    }


def spelled(expression: str) -> str:
    """A query of the table as Grafana wants it."""
    for short, long in WORDS.items():
        expression = expression.replace(short, long)
    return expression


ALERTS = {
    "name": "Alerts",
    "datasource": DATASOURCE,
    "enable": True,
    "iconColor": COLOURS["vermilion"],
    "expr": spelled('ALERTS{alertname=~"Healthagent.*",alertstate="firing",@cluster}'),
    "titleFormat": "{{alertname}}",
    "textFormat": "{{cluster}} {{name}} {{reason}}",
    "step": "10s",
}


def choice(name: str, label: str, query: str) -> Json:
    """One list above the panels."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def panels(rows: list[Json]) -> Iterator[Json]:
    """Rows of panels from left to right, each row as high as it says."""
    number, y = 0, 0
    for row in rows:
        number += 1
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row["title"],
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        x, y = 0, y + 1
        for panel in row["panels"]:
            if x + panel["width"] > WIDTH:
                x, y = 0, y + row["height"]
            number += 1
            place = {"x": x, "y": y, "w": panel["width"], "h": row["height"]}
            yield {"id": number, "gridPos": place, **described(panel)}
            x += panel["width"]
        y += row["height"]


def described(panel: Json) -> Json:
    """One panel without its place."""
    kind = panel["kind"]
    return {
        "type": kind,
        "title": panel["title"],
        "description": panel["what"],
        "datasource": DATASOURCE,
        "targets": [target(at, query, kind) for at, query in enumerate(panel["queries"])],
        "fieldConfig": {"defaults": numbers(panel), "overrides": []},
        "options": OPTIONS[kind],
        **({"transformations": MATRIX} if kind == "table" else {}),
    }


def target(at: int, query: Json, kind: str) -> Json:
    instant = kind in ("stat", "table")
    return {
        "refId": chr(ord("A") + at),
        "datasource": DATASOURCE,
        "expr": spelled(query["expr"]),
        "legendFormat": query.get("legend", ""),
        "instant": instant,
        "range": not instant,
        **({"format": "table"} if kind == "table" else {}),
    }


def numbers(panel: Json) -> Json:
    """What the numbers of a panel are, and in which colour they are shown."""
    states, steps = panel.get("states", {}), panel.get("steps", {})
    words = {
        str(value): {"index": at, "text": word, "color": COLOURS[colour]}
        for at, (value, (word, colour)) in enumerate(states.items())
    }
    thresholds = [
        {"value": None if at == 0 else value, "color": COLOURS[colour]}
        for at, (value, colour) in enumerate(steps.items())
    ]
    from_zero = panel["kind"] == "timeseries" and panel.get("from_zero", True)
    return {
        "unit": panel.get("unit", "short"),
        "color": {"mode": "thresholds" if states or steps else "palette-classic"},
        "mappings": [{"type": "value", "options": words}] if words else [],
        "thresholds": {
            "mode": "absolute",
            "steps": thresholds or [{"value": None, "color": COLOURS["grey"]}],
        },
        "custom": drawn(panel["kind"], panel.get("stacked", False)),
        **({"min": 0} if from_zero else {}),
    }


def drawn(kind: str, stacked: bool) -> Json:
    if kind == "timeseries":
        return {
            "lineWidth": 1,
            "fillOpacity": 30 if stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        }
    if kind == "state-timeline":
        return {"lineWidth": 0, "fillOpacity": 80}
    if kind == "table":
        return {"align": "center", "cellOptions": {"type": "color-background"}}
    return {}


def main() -> int:
    text = json.dumps(dashboard(yaml.safe_load(TABLE.read_text())["rows"]), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        return 0 if FILE.exists() and FILE.read_text() == text else 1
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
