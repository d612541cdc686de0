"""`make bench`: this agent beside Patroni and a bare aiohttp handler, interleaved in one run."""

import argparse
import asyncio
import os
import pwd
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from bench.load import Load, load
from bench.process import cpu_seconds, rss_mb
from bench.targets import Target, agent, bare, patroni, wait_200
from healthagent.demo.binaries import Missing
from healthagent.demo.cluster import Cluster
from healthagent.demo.fetch import find_or_fetch

CLIENTS = (1, 16, 64)
OWN_STATEMENTS = 2  # of one look at the counters
MARKERS = ("<!-- measured -->", "<!-- /measured -->")


@dataclass
class Figures:
    """What was measured of one target."""

    loads: dict[int, list[Load]] = field(default_factory=lambda: {clients: [] for clients in CLIENTS})
    cpu_per_1000: list[float] = field(default_factory=list)  # milliseconds
    rss: float = 0.0  # MB
    idle_cpu: float = 0.0  # percent of a core
    idle_statements: float | None = None  # per second
    busy_statements: float | None = None

    def median(self, clients: int, what: str) -> float:
        return float(statistics.median(getattr(one, what) for one in self.loads[clients]))


def main() -> None:
    """Measure, print the table, and with --write put it into bench/README.md."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of each (default 5)")
    parser.add_argument("--seconds", type=float, default=3, help="of each run (default 3)")
    parser.add_argument("--idle", type=float, default=20, help="seconds of the idle measurement (default 20)")
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md")
    options = parser.parse_args()
    binaries = find_or_fetch()
    if isinstance(binaries, Missing):
        raise SystemExit(binaries.problem)
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(binaries, nodes=1))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="healthagent-bench-")))
        folder.chmod(0o755)  # Patroni and its PostgreSQL run as another user when this runs as root
        ours = stack.enter_context(agent(folder, cluster.nodes[0]))
        theirs = stack.enter_context(patroni(folder, binaries, account.pw_uid, account.pw_gid))
        plain = stack.enter_context(bare(folder, wait_200(ours.url)))
        measured = measure([ours, theirs, plain], options.rounds, options.seconds, options.idle)
    text = table(measured, options.rounds, options.seconds)
    print(text)
    if options.write:
        _write(text)


def measure(targets: Sequence[Target], rounds: int, seconds: float, idle: float) -> dict[str, Figures]:
    """Every target in turn, again and again, so that a busy machine is unfair to all alike."""
    figures = {target.name: Figures() for target in targets}
    for target in targets:
        load(target.url, 4, 1)  # warm
    for number in range(rounds):
        for clients in CLIENTS:
            for target in targets:
                before = cpu_seconds(target.pid)
                result = load(target.url, clients, seconds)
                used = cpu_seconds(target.pid) - before
                figures[target.name].loads[clients].append(result)
                figures[target.name].cpu_per_1000.append(used / result.requests * 1e6)
                print(
                    f"round {number + 1} {target.name} {clients} clients: {result.per_second:.0f}/s",
                    flush=True,
                )
    for target in targets:
        figures[target.name].rss = rss_mb(target.pid)
    for target in targets:
        if target.postgres_port is not None:
            before, began = _statements(target.postgres_port), time.monotonic()
            load(target.url, 16, idle)
            after, passed = _statements(target.postgres_port), time.monotonic() - began
            figures[target.name].busy_statements = (after - before - OWN_STATEMENTS) / passed
    started = time.monotonic()
    cpu = {target.name: cpu_seconds(target.pid) for target in targets}
    statements = {t.name: _statements(t.postgres_port) for t in targets if t.postgres_port is not None}
    time.sleep(idle)
    passed = time.monotonic() - started
    for target in targets:
        figures[target.name].idle_cpu = (cpu_seconds(target.pid) - cpu[target.name]) / passed * 100
        if target.postgres_port is not None:
            after = _statements(target.postgres_port)
            figures[target.name].idle_statements = (after - statements[target.name] - OWN_STATEMENTS) / passed
    return figures


def _statements(port: int) -> int:
    """Transactions of the whole server so far; each check is one, our own question another."""

    async def ask() -> int:
        connection = await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database="postgres")
        try:
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(1.2)  # backends report their counters at most once a second
            total = await connection.fetchval("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database")
        finally:
            await connection.close()
        return int(total)

    return asyncio.run(ask())


def table(figures: dict[str, Figures], rounds: int, seconds: float) -> str:
    """The measured table in Markdown, medians over the rounds."""
    names = list(figures)
    rows = [["", *names], ["---", *("---:" for _ in names)]]
    for clients in CLIENTS:
        for what, label, digits in (
            ("per_second", "requests/s", 0),
            ("p50", "p50 ms", 2),
            ("p99", "p99 ms", 2),
        ):
            rows.append(
                [f"{clients} clients, {label}"]
                + [f"{figures[name].median(clients, what):.{digits}f}" for name in names]
            )
    rows.append(
        ["CPU per 1,000 checks, ms"] + [f"{statistics.median(figures[n].cpu_per_1000):.0f}" for n in names]
    )
    rows.append(["RSS, MB"] + [f"{figures[name].rss:.1f}" for name in names])
    rows.append(["idle CPU, % of a core"] + [f"{figures[name].idle_cpu:.2f}" for name in names])
    rows.append(
        ["idle transactions/s in PostgreSQL"] + [_shown(figures[name].idle_statements) for name in names]
    )
    rows.append(["the same at 16 clients"] + [_shown(figures[name].busy_statements) for name in names])
    ours = figures["healthagent"]
    ratios = [
        f"{clients} clients: {_per_second(ours, clients) / _per_second(figures[name], clients):.2f} x {name}"
        for name in names[1:]
        for clients in CLIENTS
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    head = f"Medians of {rounds} interleaved runs of {seconds:g} s, {os.cpu_count()} cores, client included."
    return "\n".join([head, "", *lines, "", "Requests/s of healthagent: " + "; ".join(ratios) + "."])


def _per_second(figures: Figures, clients: int) -> float:
    return figures.median(clients, "per_second")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _write(text: str) -> None:
    page = Path(__file__).with_name("README.md")
    old = page.read_text()
    start, end = (old.index(marker) for marker in MARKERS)
    page.write_text(f"{old[: start + len(MARKERS[0])]}\n{text}\n{old[end:]}")


if __name__ == "__main__":
    main()
