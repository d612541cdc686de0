"""A serving primary whose agent is replaced again and again, behind an HAProxy that forgives nothing.

Checks every 100 ms, one failure marks a server down and cuts its sessions: as strict as HAProxy can be.
"""

import asyncio
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent, together
from tests.bed.haproxy import Binary, Haproxy, socket_of
from tests.bed.sampler import Sample, Sampler
from tests.bed.writer import TABLE, Writer

BACKEND = "writes"
CLIENTS = 16
CALM = 0.3  # seconds between two replacements
CALMLY = "heard, primary, no alarm"
CONFIGURATION = """\
global
    stats socket {socket} mode 600 level admin
    log stderr local0

defaults
    log global
    mode tcp
    option log-health-checks
    timeout connect 4s
    timeout client 30m
    timeout server 30m
    timeout check 3s

listen {backend}
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server check {tls} fall 1 rise 1 on-marked-down shutdown-sessions
    default-server agent-check agent-inter 100ms agent-send "primary\\n"
{servers}
"""
# a busy machine is no fault of an agent
PATIENT = {
    "peer": {"timeout": "1900ms", "max_age": "5s"},
    "postgres": {"timeout": "2s", "max_age": "3s"},
    "drain": "6s",
}


@dataclass(frozen=True)
class Seen:
    """What everybody else saw of some replacements."""

    replacements: int
    seconds: Sequence[float]  # from the start of each successor to the end of its predecessor
    checks_failed: int
    marked_down: int
    cut: Sequence[str]  # what broke of the clients' sessions
    commits: int
    samples: Sequence[Sample]  # of GET /primary each 5 ms
    peers_said: str  # what the other agents logged
    incarnations: frozenset[str]  # of the replaced agent, before, between and afterwards
    seen_as: frozenset[str]  # what the peers took it for, asked again and again
    proxy_said: str  # of failed checks

    @property
    def refused(self) -> list[Sample]:
        """Samples that were no 200."""
        return [one for one in self.samples if one.status != 200]

    def figures(self) -> Mapping[str, object]:
        """For people."""
        took = sorted(one.after - one.before for one in self.samples)
        return {
            "replacements": self.replacements,
            "failed checks": self.checks_failed,
            "marked down": self.marked_down,
            "sessions cut": len(self.cut),
            "commits meanwhile": self.commits,
            "samples of /primary": len(self.samples),
            "samples that were no 200": len(self.refused),
            "slowest sample, ms": round(took[-1] * 1000, 1),
            "99.9 % of the samples within, ms": round(took[int(len(took) * 0.999)] * 1000, 1),
            "incarnations": len(self.incarnations),
            "the peers saw": " / ".join(sorted(self.seen_as)),
            "one replacement, median s": round(statistics.median(self.seconds), 2),
        }


async def replaced(
    binary: Binary,
    nodes: Sequence[Node],
    folder: Path,
    count: int,
    *,
    settings: Mapping[str, object] | None = None,
    tls: bool = False,
) -> Seen:
    """Replace the agent of the first node so many times under writes; `tls`: checks and peers use it."""
    agents = [Agent(folder, node, agent_check=True, settings=PATIENT) for node in nodes]
    checked = [free_port() for _ in nodes] if tls else [agent.port for agent in agents]
    for agent, port in zip(agents, checked, strict=True):
        agent.change(settings or {})
        if tls:  # the sampler and the tests ask without, HAProxy with TLS
            agent.change({"checks": {"listen": f"{agent.host}:{agent.port}"}})
            agent.change({"listen": f"{agent.host}:{port}"})
    front = _front(binary, nodes, agents, checked, folder, tls)
    await asyncio.to_thread(nodes[0].psql, TABLE)
    async with AsyncExitStack() as stack:
        running = together(agents)
        await asyncio.to_thread(running.__enter__)
        stack.callback(running.__exit__, None, None, None)
        for agent, path in zip(agents, ("/primary", "/replica", "/replica"), strict=False):
            await asyncio.to_thread(agent.wait_for, path, 200, timeout=30.0)
        stack.callback(front.stop)
        await asyncio.to_thread(front.start)
        await asyncio.to_thread(front.wait_up, BACKEND, {nodes[0].name})
        writer = await stack.enter_async_context(Writer(_port(front), held=CLIENTS, fresh=1))
        await writer.wait_commits(10 * CLIENTS)
        return await _watched(agents, front, writer, folder, count)


async def _watched(agents: Sequence[Agent], front: Haproxy, writer: Writer, folder: Path, count: int) -> Seen:
    first, *others = agents
    await asyncio.to_thread(until, lambda: _views(others, first.name) == {CALMLY}, 10.0, "all hear it serve")
    before = _counted(front)
    known, views = {first.status()["incarnation"]}, set[str]()
    looking = asyncio.create_task(_look(others, first.name, views))
    logs, commits, failures = [len(one.log()) for one in others], len(writer.commits), len(writer.failures)
    sampler = Sampler((), first.host, first.port, folder / "replaced.samples")
    took = []
    try:
        for _ in range(count):
            await writer.wait_commits(CLIENTS)
            began = time.monotonic()
            await asyncio.to_thread(first.replace)
            took.append(time.monotonic() - began)
            await asyncio.sleep(CALM)
            known.add((await asyncio.to_thread(first.status))["incarnation"])
        await asyncio.sleep(2.0)
        await writer.wait_commits(10 * CLIENTS)
    finally:
        samples = sampler.stop()
        looking.cancel()
    after = _counted(front)
    return Seen(
        replacements=count,
        seconds=took,
        checks_failed=after[0] - before[0],
        marked_down=after[1] - before[1],
        cut=[f"{one.error}: {one.detail}" for one in writer.failures[failures:]],
        commits=len(writer.commits) - commits,
        samples=samples,
        peers_said="\n".join(
            line
            for other, start in zip(others, logs, strict=True)
            for line in other.log()[start:].splitlines()
            if not line.endswith("answers again") and " no longer: " not in line  # of their own start
        ),
        incarnations=frozenset(known),
        seen_as=frozenset(views),
        proxy_said="\n".join(line for line in front.said(10_000).splitlines() if "failed" in line),
    )


def _front(
    binary: Binary,
    nodes: Sequence[Node],
    agents: Sequence[Agent],
    checked: Sequence[int],
    folder: Path,
    tls: bool,
) -> Haproxy:
    servers = "\n".join(
        f"    server {node.name} {node.host}:{node.port} port {port} agent-port {agent.check_port}"
        for node, agent, port in zip(nodes, agents, checked, strict=True)
    )
    text = CONFIGURATION.format(
        socket=socket_of(folder),
        backend=BACKEND,
        port=free_port(),
        # HAProxy gives a TLS handshake no longer than `inter`, and a busy machine may take 100 ms for it
        tls="check-ssl verify none inter 500ms" if tls else "inter 100ms",
        servers=servers,
    )
    return Haproxy(binary, text, folder)


def _port(front: Haproxy) -> int:
    return int(front.configuration.read_text().partition("bind 127.0.0.1:")[2].split()[0])


def _counted(front: Haproxy) -> tuple[int, int]:
    """Failed checks (those of agent-check too) and changes to down, of the server that is up."""
    rows: Iterable[Mapping[str, str]] = front.stats()
    [row] = [row for row in rows if row["pxname"] == BACKEND and row["svname"] == "pg1"]
    return int(row["chkfail"] or 0), int(row["chkdown"] or 0)


async def _look(others: Sequence[Agent], name: str, views: set[str]) -> None:
    """Note what the others take an agent for, for ever."""
    while True:
        views |= await asyncio.to_thread(_views, others, name)
        await asyncio.sleep(0.05)


def _views(others: Sequence[Agent], name: str) -> set[str]:
    views = set()
    for other in others:
        found = next(one for one in other.status()["peers"] if one["name"] == name)
        heard = "heard" if found["heard"] else "silent"
        views.add(f"{heard}, {found['reason']}, {found['alarm'] or 'no alarm'}")
    return views
