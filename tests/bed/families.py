"""The metrics that there are, from scrapes of an agent and of the bridge to pgpool."""

import re
from functools import cache

from prometheus_client import CollectorRegistry, generate_latest

from healthagent.metrics import Metrics, Sources
from healthagent.pgpool.metrics import BridgeCollector, Counts
from tests.bed.boards import Clock, board


def named_in(scrape: str) -> frozenset[str]:
    """Every name that a sample of these families may have."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", scrape, re.MULTILINE):
        found.add(name)
        if kind == "histogram":
            found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return frozenset(found)


@cache
def families() -> frozenset[str]:
    """All of both, those without samples too."""
    agent = Metrics(board(None), Clock(), Sources()).render(None)[0].decode()
    registry = CollectorRegistry()
    registry.register(BridgeCollector(lambda: None, Counts(), Clock(), 8.0))
    return named_in(agent) | named_in(generate_latest(registry).decode())
