"""`make figures`: how long changes of the primary take, and what peers cost, on real PostgreSQL."""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.process import cpu_seconds
from bench.witnesses import witnesses
from healthagent.clock import boottime
from healthagent.demo.binaries import Binaries, Missing
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.fetch import find_or_fetch
from tests.bed.agent import Agent
from tests.bed.network import missing
from tests.bed.sampler import overlaps
from tests.bed.site import DRAIN, ROUND, Site, gap

PAGE = Path(__file__).parent.parent / "docs" / "figures.md"
MARKERS = ("<!-- measured -->", "<!-- /measured -->")
DEFAULTS = {"takeover_after": "10s", "start_alone_after": "10s"}  # the site waits less
PEERS = (2, 4, 8, 16, 32, 64)
SETTLED = 3.0  # seconds until all that starting costs is over


@dataclass
class Figures:
    """Seconds of each repetition, by what was measured."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, seconds: float) -> None:
        self.seconds.setdefault(what, []).append(seconds)
        print(f"{what}: {seconds * 1000:.0f} ms", flush=True)


def main() -> None:
    """Measure, print the tables, and with --write put them into docs/figures.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.figures", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each change (default 5)")
    parser.add_argument("--seconds", type=float, default=10, help="for each number of peers (default 10)")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/figures.md")
    options = parser.parse_args()
    binaries = find_or_fetch()
    problem = binaries.problem if isinstance(binaries, Missing) else missing()
    if isinstance(binaries, Missing) or problem is not None:
        raise SystemExit(problem)
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        template = stack.enter_context(Template(binaries))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="healthagent-figures-")))
        figures = _changes(binaries, template, folder, options.rounds)
        costs = [_cost(binaries, template, folder, count, options.seconds) for count in PEERS]
    text = f"{_head(options.rounds, before)}\n\n{_changes_table(figures)}\n\n{_costs_table(costs)}"
    print(f"\n{text}")
    if options.write:
        page = PAGE.read_text()
        start, end = (page.index(marker) for marker in MARKERS)
        PAGE.write_text(f"{page[: start + len(MARKERS[0])]}\n{text}\n{page[end:]}")


# Changes of the primary.


def _changes(binaries: Binaries, template: Template, folder: Path, rounds: int) -> Figures:
    figures = Figures()

    def fresh() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    scenes: Sequence[Callable[[Site, Figures], None]] = (
        _old_primary_long_dead,
        _old_primary_just_died,
        _handover,
        _old_primary_returns,
        _partition_heals,
    )
    with Site(binaries, template, fresh) as site:
        for _ in range(rounds):
            for scene in scenes:
                site.ready(DEFAULTS)
                scene(site, figures)
                site.settle()
    return figures


def _promote(site: Site, figures: Figures, what: str) -> None:
    asked_at = boottime()
    site.node("pg2").promote()
    promoted_at = boottime()
    site.wait("pg2", "primary")
    time.sleep(0.1)  # its first 200 reaches the sampler's file
    began = site.services("pg2")[0].began
    figures.add(f"{what}, from the call of pg_promote", began - asked_at)
    figures.add(f"{what}, from its return", began - promoted_at)
    _add_overlap(site, figures)


def _add_overlap(site: Site, figures: Figures) -> None:
    samples = {name: site.samples(name) for name in site.data()}
    figures.add("two at 200 after one exchange", sum(one for _, _, one in overlaps(samples)))


def _old_primary_long_dead(site: Site, figures: Figures) -> None:
    site.kill("pg1")
    time.sleep(DRAIN + 2.0)
    _promote(site, figures, "promotion to 200, the old primary dead for longer than the drain")


def _old_primary_just_died(site: Site, figures: Figures) -> None:
    site.kill("pg1")
    _promote(site, figures, "promotion to 200, the old primary died just before")


def _handover(site: Site, figures: Figures) -> None:
    site.node("pg3").follow(site.node("pg2"))
    site.node("pg2").wait_streaming(site.node("pg3"))
    time.sleep(1.0)
    _promote(site, figures, "promotion to 200, the old primary alive and serving")
    figures.add("last 200 of the old to first of the new", gap(site.services("pg1"), site.services("pg2")))


def _old_primary_returns(site: Site, figures: Figures) -> None:
    site.kill("pg1")
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    site.watch()
    site.agents["pg1"].start()
    site.node("pg1").start()
    site.wait("pg1", "stale_timeline")
    time.sleep(3.0)
    figures.add("old primary returns, at 200", sum(one.ended - one.began for one in site.services("pg1")))
    refused = [one for one in site.samples("pg2") if one.status != 200]
    figures.add("old primary returns, the new one not at 200", sum(one.after - one.before for one in refused))
    _add_overlap(site, figures)


def _partition_heals(site: Site, figures: Figures) -> None:
    site.network.cut(["pg1"])
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    healed_at = boottime()
    site.network.heal()
    site.wait("pg1", "stale_timeline")
    time.sleep(0.1)
    samples = {name: site.samples(name) for name in site.data()}
    both = sum(seconds for _, _, seconds in overlaps(samples, healed_at))
    figures.add("partition heals, both at 200", both)


# What peers cost.


@dataclass
class Cost:
    """Of one agent with so many peers."""

    peers: int
    cpu: float  # share of a core
    bytes: float  # per second, of all peers


def _cost(binaries: Binaries, template: Template, folder: Path, peers: int, seconds: float) -> Cost:
    with Cluster(binaries, 1, template=template) as cluster:
        [node] = cluster.nodes
        [(identifier,)] = node.psql("SELECT system_identifier FROM pg_control_system()")
        agent = Agent(Path(tempfile.mkdtemp(dir=folder)), node)

        async def measured() -> Cost:
            async with witnesses(peers, identifier) as crowd, asyncio.TaskGroup() as asking:
                entries = [
                    {"name": one.name, "url": f"http://127.0.0.1:{one.port}", "witness": True}
                    for one in crowd
                ]
                agent.change({"peers": entries, "cluster": "main"})
                await asyncio.to_thread(agent.start)
                await asyncio.to_thread(agent.wait_for, "/primary", 200)
                tasks = [asking.create_task(one.ask_for_ever(agent.host, agent.port)) for one in crowd]
                await asyncio.sleep(SETTLED)
                began, used = time.monotonic(), cpu_seconds(agent.pid)
                told = sum(one.passed for one in crowd)
                await asyncio.sleep(seconds)
                passed = time.monotonic() - began
                cost = Cost(
                    peers,
                    (cpu_seconds(agent.pid) - used) / passed,
                    (sum(one.passed for one in crowd) - told) / passed,
                )
                for task in tasks:
                    task.cancel()
                agent.kill()
                await asyncio.sleep(0.2)  # its connections end before the loop does
            return cost

        try:
            cost = asyncio.run(measured())
        finally:
            agent.kill()
    print(f"{peers} peers: {cost.cpu * 100:.1f} % of a core, {cost.bytes:.0f} bytes/s", flush=True)
    return cost


# The page.


def _head(rounds: int, load_before: float) -> str:
    return (
        f"{rounds} repetitions of each, {os.cpu_count()} cores, load average {load_before:.1f} at the start "
        f"and {os.getloadavg()[0]:.1f} at the end, all defaults (drain {DRAIN:g} s, a peer round at most "
        f"{ROUND:g} s). Milliseconds; every agent was asked each 5 ms."
    )


def _changes_table(figures: Figures) -> str:
    rows = ["| | median | most |", "| --- | ---: | ---: |"]
    for what, seconds in figures.seconds.items():
        rows.append(f"| {what} | {statistics.median(seconds) * 1000:.0f} | {max(seconds) * 1000:.0f} |")
    return "\n".join(rows)


def _costs_table(costs: Sequence[Cost]) -> str:
    rows = [
        "| peers | CPU, % of a core | for each peer | kB/s with all peers | for each peer |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in costs:
        share, kilobytes = one.cpu * 100, one.bytes / 1000
        rows.append(
            f"| {one.peers} | {share:.2f} | {share / one.peers:.3f} | "
            f"{kilobytes:.1f} | {kilobytes / one.peers:.2f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
