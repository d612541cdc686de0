"""What an agent holds: memory, descriptors, tasks, sessions at PostgreSQL."""

import os
import re
import statistics
from dataclasses import dataclass

from bench.process import rss_mb
from healthagent.demo.postgres import Node
from tests.bed.agent import Agent

MEMORY = 3.0  # MB of 10^6 bytes that may be added between the first and the last third of a run
SPARE = 8  # descriptors and tasks: of connections that are just open
SESSIONS = 2  # the held one, and the new one that takes its place

SESSIONS_OF_OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'healthagent'"


@dataclass(frozen=True)
class Holds:
    """What one agent holds at one moment."""

    memory: float  # MB of 10^6 bytes
    descriptors: int
    tasks: int


def holds(agent: Agent) -> Holds:
    text = str(agent.get("/metrics").json)
    tasks = re.search(r"^healthagent_tasks\{.*\} ([\d.]+)$", text, re.M)
    assert tasks is not None, "no healthagent_tasks among the metrics"
    return Holds(rss_mb(agent.pid), len(os.listdir(f"/proc/{agent.pid}/fd")), int(float(tasks[1])))


def sessions(node: Node) -> int:
    return int(node.psql(SESSIONS_OF_OURS)[0][0])


def leaks(name: str, while_running: list[Holds], quiet_before: Holds, quiet_after: Holds) -> list[str]:
    """What is more at the end than it was, one sentence each."""
    found = []
    third = len(while_running) // 3
    if third:
        first = statistics.median(one.memory for one in while_running[third : 2 * third])
        last = statistics.median(one.memory for one in while_running[-third:])
        if last - first > MEMORY:
            found.append(f"{name}: memory went from {first:.1f} to {last:.1f} MB")
    for what in ("descriptors", "tasks"):
        before, after = getattr(quiet_before, what), getattr(quiet_after, what)
        if after > before + SPARE:
            found.append(f"{name}: {before} {what} before, {after} after")
    return found
