"""The soak: three real nodes, checks at a steady rate, PostgreSQL and peers failing at random.

python -m tests.soak --minutes 15 --rate 500 [--seed N]      # exit 1 when anything leaked or was wrong
"""

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from healthagent.demo.binaries import Missing
from healthagent.demo.cluster import Cluster
from healthagent.demo.fetch import find_or_fetch
from tests.bed.agent import Agent, agents_beside
from tests.soak.clients import Clients
from tests.soak.disturbances import RECOVERED, Truth
from tests.soak.faults import Faults
from tests.soak.resources import SESSIONS, Holds, holds, leaks, sessions

LOOK_EVERY = 5.0  # seconds
TRACES = ("Traceback", "ERROR", "never retrieved", "was destroyed but it is pending")


@dataclass(frozen=True)
class Outcome:
    """What a soak found: nothing in `complaints` is what one wants."""

    complaints: list[str]
    summary: str


async def soak(cluster: Cluster, agents: list[Agent], seconds: float, rate: float, seed: int) -> Outcome:
    """Run it; the agents serve and hear each other when it begins."""
    truth = Truth(primary=cluster.nodes[0].name)
    clients = Clients(agents, truth, seed)
    lasting = agents[:2]  # these two live through the whole run
    before = [holds(agent) for agent in lasting]
    seen: list[list[Holds]] = [[] for _ in lasting]
    asking = asyncio.create_task(clients.run(rate))
    faults = Faults(cluster.nodes, agents, truth, seed)
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until and not asking.done():
            await asyncio.sleep(LOOK_EVERY)
            for agent, series in zip(lasting, seen, strict=True):
                with suppress(OSError):  # it is frozen just now
                    series.append(await asyncio.to_thread(holds, agent))
    finally:
        await asyncio.to_thread(faults.end)
        await asyncio.sleep(RECOVERED)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    after = [await asyncio.to_thread(holds, agent) for agent in lasting]
    complaints = list(clients.complaints)
    for agent, series, first, last in zip(lasting, seen, before, after, strict=True):
        complaints += leaks(agent.name, series, first, last)
    for node in cluster.nodes:
        if (count := sessions(node)) > SESSIONS:
            complaints.append(f"{node.name}: {count} sessions of the agent at PostgreSQL")
    for agent in agents:
        complaints += [
            f"{agent.name}: {line}"
            for line in agent.log().splitlines()
            if any(trace in line for trace in TRACES)
        ]
    return Outcome(complaints, summary(clients, faults, before, after, seconds))


def summary(clients: Clients, faults: Faults, before: list[Holds], after: list[Holds], seconds: float) -> str:
    answers = sum(clients.answered.values())
    lines = [
        f"{answers} answers in {seconds:.0f} s, {answers / seconds:.0f} a second; {clients.wrong} wrong; "
        f"the slowest of an agent left alone took {clients.longest * 1000:.0f} ms; "
        f"the machine stood still {clients.stalls} times",
        *(f"  {count:6} {' '.join(map(str, key))}" for key, count in sorted(clients.answered.items())),
        "faults: " + ", ".join(f"{count} {what}" for what, count in sorted(faults.done.items())),
    ]
    for number, (first, last) in enumerate(zip(before, after, strict=True)):
        lines.append(f"agent {number + 1}: {first} before, {last} after")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=500.0, help="checks a second, over all three agents")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--logs", type=Path, help="an existing folder for the agents' logs")
    options = parser.parse_args()
    binaries = find_or_fetch()
    if isinstance(binaries, Missing):
        raise SystemExit(binaries.problem)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(Cluster(binaries, 3))
        agents = stack.enter_context(agents_beside(folder, cluster.nodes))
        agents[0].wait_for("/primary", 200)
        for agent in agents[1:]:
            agent.wait_for("/replica", 200)
        print(f"seed {options.seed}")
        outcome = asyncio.run(soak(cluster, agents, options.minutes * 60, options.rate, options.seed))
        if options.logs is not None:
            for agent in agents:
                Path(options.logs, f"{agent.name}.log").write_text(agent.log())
    print(outcome.summary)
    for complaint in outcome.complaints:
        print(f"WRONG: {complaint}")
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
