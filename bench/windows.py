"""`make windows`: where writes go, and for how long nowhere, while the primary changes behind HAProxy.

One cluster, and three HAProxys in front of it at once, each with a recording writer: every event is
seen by all configurations, so that a busy machine is unfair to all alike.
"""

import argparse
import asyncio
import math
import os
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from healthagent.demo.binaries import Missing as NoPostgres
from healthagent.demo.cluster import Cluster
from healthagent.demo.fetch import find_or_fetch
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent
from tests.bed.haproxy import Missing as NoHaproxy
from tests.bed.haproxy import find_haproxy
from tests.bed.traffic import Front, Layout, agents_with_port, places, promote_foremost, take_over
from tests.bed.writer import TABLE, Commit, Instant, Writer, boottime

PAGE = Path(__file__).parent.parent / "haproxy" / "README.md"
MARKERS = ("<!-- windows -->", "<!-- /windows -->")
LOOK = 0.01  # seconds between two looks at what an agent answers
SETTLED = 60.0  # seconds: Patroni's configuration takes up to ten
SOME = 10  # commits that show that writes flow


@dataclass(frozen=True)
class Window:
    """One event behind one configuration; seconds."""

    last_on_old: float  # after the event began to count, see EVENTS
    first_on_new: float  # after the new primary's agent said 200
    between: float  # from the last write on the old to the first on the new; negative: both took writes


@dataclass(frozen=True)
class Behind:
    """One HAProxy, and the client behind it."""

    front: Front
    writer: Writer

    async def settled(self, old: Node, new: Node) -> None:
        """Wait until writes go to the new primary only."""
        await self.writer.wait_commits(SOME, node=new.name, timeout=SETTLED)
        proxy, backend = self.front.proxy, self.front.backend
        if new is not old:
            await asyncio.to_thread(proxy.wait_up, backend, {new.name}, SETTLED)
            left = f"{self.front.layout}: no session is left to {old.name}"
            await asyncio.to_thread(until, lambda: not proxy.sessions(backend)[old.name], SETTLED, left)


class Bench:
    """Three nodes, their agents, and every configuration in front of them."""

    def __init__(self, nodes: Sequence[Node], agents: Sequence[Agent], behind: Sequence[Behind]) -> None:
        self.primary, *self.standbys = nodes
        self.behind = behind
        self._agents = {agent.name: agent for agent in agents}

    async def switchover(self) -> list[Window]:
        """Stop the primary, promote a standby, and let the old primary follow it."""
        old, began = self.primary, boottime()

        def act() -> None:
            old.stop()
            new, other = promote_foremost(self.standbys)
            self.primary, self.standbys = new, [other, old]

        def rejoin() -> None:
            old.become_standby_of(self.primary)
            old.start()

        windows = await self._measured(act, lambda: began, rejoin)
        await asyncio.to_thread(self.primary.wait_streaming, *self.standbys)
        return windows

    async def promotion(self) -> list[Window]:
        """Promote a standby that the other one follows, while the old primary goes on."""
        old, (new, other) = self.primary, self.standbys

        def act() -> None:
            take_over(new, other)
            self.primary, self.standbys = new, [other, old]

        refused = asyncio.create_task(self._says(old, 503))
        windows = await self._measured(act, refused.result)
        await asyncio.to_thread(old.rewind, new)
        await asyncio.to_thread(new.wait_streaming, *self.standbys)
        return windows

    async def refusal(self) -> list[Window]:
        """Let the agent refuse for two seconds: nothing but the verdict changes."""
        agent, began = self._agents[self.primary.name], boottime()
        await asyncio.to_thread(agent.post, "/maintenance", {"on": True})

        def act() -> Instant:
            for one in self.behind:
                proxy, backend = one.front.proxy, one.front.backend
                until(lambda p=proxy, b=backend: not p.up(b), SETTLED, "the server is down")  # type: ignore[misc]  # bound now, not at the call
            permitted_at = boottime()
            agent.post("/maintenance", {"on": False})
            return permitted_at

        return await self._measured(act, lambda: began)

    async def _measured(
        self,
        act: Callable[[], Instant | None],
        began: Callable[[], Instant],
        then: Callable[[], None] = lambda: None,
    ) -> list[Window]:
        old, marks = self.primary, [len(one.writer.commits) for one in self.behind]
        known = await asyncio.to_thread(act)  # when the new primary was permitted, if the act decides that
        new = self.primary
        permitted = asyncio.create_task(self._says(new, 200))
        await asyncio.to_thread(then)
        permitted_at = await permitted if known is None else known
        async with asyncio.TaskGroup() as settling:
            for one in self.behind:
                settling.create_task(one.settled(old, new))
        return [
            _window(one.writer.commits[mark:], old, new, began(), permitted_at)
            for one, mark in zip(self.behind, marks, strict=True)
        ]

    async def _says(self, node: Node, status: int) -> Instant:
        """Ask an agent all the time over one connection; when it first answered with this status."""
        agent = self._agents[node.name]
        reader, writer = await asyncio.open_connection(agent.host, agent.port)
        try:
            async with asyncio.timeout(SETTLED):
                while True:
                    writer.write(b"HEAD /primary HTTP/1.1\r\nHost: bench\r\n\r\n")
                    answer = await reader.readuntil(b"\r\n\r\n")
                    if int(answer.split()[1]) == status:
                        return boottime()
                    await asyncio.sleep(LOOK)
        finally:
            writer.close()


def _window(commits: Sequence[Commit], old: Node, new: Node, began: Instant, permitted_at: Instant) -> Window:
    if old is new:
        before = [commit.done_at for commit in commits if commit.done_at < permitted_at]
        after = [commit.done_at for commit in commits if commit.done_at >= permitted_at]
    else:
        before = [commit.done_at for commit in commits if commit.node == old.name]
        after = [commit.done_at for commit in commits if commit.node == new.name]
    last, first = max(before, default=began), min(after)
    return Window(last - began, first - permitted_at, first - last)


EVENTS: dict[str, Callable[[Bench], Coroutine[None, None, list[Window]]]] = {
    "switchover": Bench.switchover,
    "promotion": Bench.promotion,
    "refusal": Bench.refusal,
}
TITLES = {
    "switchover": "Planned switchover; 0 is when the old primary is told to stop.",
    "promotion": "A standby is promoted while the old primary goes on; 0 is the first 503 of its agent.",
    "refusal": "The primary's agent says no, then yes again; 0 is the no. The old and the new are one node.",
}


async def measure(bench: Bench, times: int) -> dict[str, list[list[Window]]]:
    """All events in turn, again and again; by event, a list of windows for each configuration."""
    found: dict[str, list[list[Window]]] = {event: [[] for _ in bench.behind] for event in EVENTS}
    for number in range(times):
        for event, act in EVENTS.items():
            windows = await act(bench)
            for one, window in zip(found[event], windows, strict=True):
                one.append(window)
            shown = ", ".join(f"{window.between * 1000:.0f}" for window in windows)
            print(f"{event} {number + 1}: {shown} ms without writes", flush=True)
    return found


@asynccontextmanager
async def everything(version: str, folder: Path) -> AsyncIterator[Bench]:
    """Start all of it."""
    binaries, haproxy = find_or_fetch(), find_haproxy(version)
    if isinstance(binaries, NoPostgres | NoHaproxy):
        raise SystemExit(binaries.problem)
    if isinstance(haproxy, NoHaproxy):
        raise SystemExit(haproxy.problem)
    async with AsyncExitStack() as stack:
        nodes = stack.enter_context(Cluster(binaries, places(3))).nodes
        nodes[0].psql(TABLE)
        agents = stack.enter_context(agents_with_port(folder, nodes))
        await asyncio.to_thread(agents[0].wait_for, "/primary", 200)
        behind = []
        for layout in Layout:
            below = folder / layout.name
            below.mkdir()
            front = Front(haproxy, layout, nodes, agents, below)
            await asyncio.to_thread(stack.enter_context, front.proxy)
            writer = await stack.enter_async_context(Writer(front.write_port, held=2))
            behind.append(Behind(front, writer))
        bench = Bench(nodes, agents, behind)
        for one in behind:
            await one.settled(nodes[0], nodes[0])
            await asyncio.to_thread(one.front.proxy.wait_up, one.front.backend, {nodes[0].name}, SETTLED)
        yield bench


def table(found: dict[str, list[list[Window]]], heading: str) -> str:
    """The measured windows in Markdown."""
    lines = [heading]
    for event, by_layout in found.items():
        lines += ["", TITLES[event], ""]
        columns = ["", "last write on the old", "first on the new, after its 200"]
        columns += ["overlap", "outage"] if event != "refusal" else []
        lines += [_row(columns), _row(["---", *("---:" for _ in columns[1:])])]
        for layout, windows in zip(Layout, by_layout, strict=True):
            cells = [str(layout), _spread([w.last_on_old for w in windows])]
            cells.append(_spread([w.first_on_new for w in windows]))
            if event != "refusal":
                cells.append(_spread([max(-w.between, 0.0) for w in windows]))
                cells.append(_spread([max(w.between, 0.0) for w in windows]))
            lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(seconds: Sequence[float]) -> str:
    """Median, 95th percentile and maximum, in milliseconds."""
    ordered = sorted(seconds)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return " / ".join(f"{value * 1000:.0f}" for value in (statistics.median(ordered), p95, ordered[-1]))


def main() -> None:
    """Measure, print the tables, and with --write put them into haproxy/README.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.windows", description=main.__doc__)
    parser.add_argument("--events", type=int, default=20, help="of each kind (default 20)")
    parser.add_argument("--haproxy", default="2.6", help="version of HAProxy (default 2.6)")
    parser.add_argument("--write", action="store_true", help="put the tables into haproxy/README.md")
    options = parser.parse_args()
    load = [os.getloadavg()[0]]

    async def run(folder: Path) -> dict[str, list[list[Window]]]:
        async with everything(options.haproxy, folder) as bench:
            return await measure(bench, options.events)

    with tempfile.TemporaryDirectory(prefix="healthagent-windows-") as folder:
        found = asyncio.run(run(Path(folder)))
    load.append(os.getloadavg()[0])
    text = table(
        found,
        f"Median / 95th percentile / maximum of {options.events} events, ms; HAProxy {options.haproxy}, "
        f"{os.cpu_count()} cores, load average {load[0]:.0f} before and {load[1]:.0f} after.",
    )
    print(text)
    if options.write:
        old = PAGE.read_text()
        start, end = (old.index(marker) for marker in MARKERS)
        PAGE.write_text(f"{old[: start + len(MARKERS[0])]}\n{text}\n{old[end:]}")


if __name__ == "__main__":
    main()
