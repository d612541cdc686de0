"""A client that writes through real HAProxy to real PostgreSQL, while everything that fails does.

What must hold whatever happens: no two nodes with overlapping commits, no commit on a superseded
timeline, no write to a replica, and no session left to a node that may not be written to.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent
from tests.bed.haproxy import Binary, Haproxy, Missing, find_haproxy
from tests.bed.traffic import (
    DRAIN,
    Front,
    Layout,
    agents_with_port,
    places,
    promote_foremost,
    take_over,
)
from tests.bed.writer import TABLE, Writer, handovers, overlaps, superseded
from tests.conftest import StartCluster

pytestmark = pytest.mark.live

NOISE = 2.0  # seconds: a machine with two busy cores; what is usual is in haproxy/README.md
CALM = 2.0  # seconds to look at something that must not happen
SWITCHED = {  # seconds: how long a planned switchover may take
    Layout.GATE: DRAIN + 1.0 + NOISE,
    Layout.SIMPLE: DRAIN + 1.0 + NOISE,
    Layout.TUTORIAL: DRAIN + 2 * 3.0 + 1.0 + NOISE,  # two checks of 3 s
}
ENOUGH = 20  # commits that show that writes flow

GATE_26 = pytest.param("2.6", Layout.GATE, id="gate in 2.6")
GATE_28 = pytest.param("2.8", Layout.GATE, id="gate in 2.8")
SIMPLE_26 = pytest.param("2.6", Layout.SIMPLE, id="simple in 2.6")
TUTORIAL_26 = pytest.param("2.6", Layout.TUTORIAL, id="Patroni's tutorial in 2.6")


@dataclass
class Traffic:
    """Three nodes (the first is the primary), their agents, HAProxy, and a client that writes."""

    nodes: Sequence[Node]
    agents: Sequence[Agent]
    front: Front
    writer: Writer

    @property
    def proxy(self) -> Haproxy:
        return self.front.proxy

    async def flows(self, node: Node) -> None:
        """Wait until writes are acknowledged by this node."""
        await self.writer.wait_commits(ENOUGH, node=node.name)

    def sessions(self, node: Node) -> int:
        """Sessions for writes that HAProxy has to this node now."""
        return self.proxy.sessions(self.front.backend)[node.name]

    async def cut(self, node: Node, within: float = 5.0) -> None:
        """Wait until HAProxy has no session for writes to this node."""
        await asyncio.to_thread(until, lambda: self.sessions(node) == 0, within, f"no session to {node.name}")

    async def still(self, node: Node) -> None:
        """Claim that no more rows appear in a node that nobody may write to, acknowledged or not."""
        before = await asyncio.to_thread(rows, node)
        await asyncio.sleep(1.0)
        assert await asyncio.to_thread(rows, node) == before

    def one_handover(self, old: Node, new: Node, *, replicas_too: bool = False) -> float:
        """Claim that writes went from the one to the other, once; returns the outage in seconds."""
        self.never_two(replicas_too=replicas_too)
        [handover] = handovers(self.writer.commits)
        assert (handover.old.node, handover.old.timeline) == (old.name, 1)
        assert (handover.new.node, handover.new.timeline) == (new.name, 2)
        return handover.outage

    def never_two(self, *, replicas_too: bool = False) -> None:
        """Claim what must hold whatever happened; `replicas_too`: replicas may have refused writes."""
        assert overlaps(self.writer.commits) == []
        assert superseded(self.writer.commits) == []
        assert replicas_too or self.writer.reached_a_replica() == []


def rows(node: Node) -> int:
    [(count,)] = node.psql("SELECT count(*) FROM written")
    return int(count)


def binary(version: str) -> Binary:
    found = find_haproxy(version)
    if isinstance(found, Missing):
        pytest.fail(found.problem, pytrace=False)
    return found


@asynccontextmanager
async def traffic(
    start_cluster: StartCluster,
    folder: Path,
    version: str,
    layout: Layout,
    *,
    count: int = 3,
    hard_stop_after: str = "30s",
    cuts: bool = True,
) -> AsyncIterator[Traffic]:
    """Writes that flow to the first node, and to no other."""
    program = binary(version)
    cluster = await asyncio.to_thread(start_cluster, places(count))
    nodes = cluster.nodes
    await asyncio.to_thread(nodes[0].psql, TABLE)
    async with AsyncExitStack() as stack:
        together = agents_with_port(folder, nodes)
        agents = await asyncio.to_thread(together.__enter__)
        stack.callback(together.__exit__, None, None, None)
        front = Front(program, layout, nodes, agents, folder, hard_stop_after=hard_stop_after, cuts=cuts)
        stack.callback(front.proxy.stop)
        await asyncio.to_thread(agents[0].wait_for, "/primary", 200)
        await asyncio.to_thread(front.proxy.start)
        writer = await stack.enter_async_context(Writer(front.write_port))
        made = Traffic(nodes, agents, front, writer)
        await made.flows(nodes[0])
        yield made


@pytest.mark.parametrize(("version", "layout"), [GATE_26, GATE_28, SIMPLE_26, TUTORIAL_26])
async def test_a_planned_switchover(
    start_cluster: StartCluster, tmp_path: Path, version: str, layout: Layout
) -> None:
    async with traffic(start_cluster, tmp_path, version, layout) as made:
        old, *standbys = made.nodes
        await asyncio.to_thread(old.stop)
        new, _ = await asyncio.to_thread(promote_foremost, standbys)
        old.become_standby_of(new)
        await asyncio.to_thread(old.start)
        await made.flows(new)
        await made.cut(old, within=15.0)
    # without an agent-check the old primary may be back as a replica before HAProxy has seen it go
    outage = made.one_handover(old, new, replicas_too=layout is not Layout.GATE)
    assert outage < SWITCHED[layout]


@pytest.mark.parametrize(("version", "layout"), [GATE_26, GATE_28, SIMPLE_26])
async def test_kill_9_and_promote_and_the_old_primary_reborn(
    start_cluster: StartCluster, tmp_path: Path, version: str, layout: Layout
) -> None:
    async with traffic(start_cluster, tmp_path, version, layout) as made:
        old, *standbys = made.nodes
        await asyncio.to_thread(old.kill9)
        await made.writer.wait_failures(1)
        new, _ = await asyncio.to_thread(promote_foremost, standbys)
        await made.flows(new)
        undisturbed = len(made.writer.failures)
        await asyncio.to_thread(old.start)  # as a primary: nobody has told it of the other one
        await asyncio.to_thread(made.agents[0].wait_for, "/primary", 503, "stale_timeline")
        await asyncio.sleep(CALM)
        await made.still(old)
        assert made.writer.failures[undisturbed:] == []
        assert made.proxy.up(made.front.backend) == {new.name}
    made.one_handover(old, new)


@pytest.mark.parametrize(("version", "layout"), [GATE_26, GATE_28, SIMPLE_26])
async def test_a_switchover_that_does_not_stop_the_old_primary(
    start_cluster: StartCluster, tmp_path: Path, version: str, layout: Layout
) -> None:
    async with traffic(start_cluster, tmp_path, version, layout) as made:
        old, new, other = made.nodes
        await asyncio.to_thread(take_over, new, other)
        await made.cut(old)
        await made.flows(new)
        await asyncio.to_thread(made.agents[0].wait_for, "/primary", 503, "stale_timeline")
        await made.still(old)
    made.one_handover(old, new)


async def test_a_standby_promoted_by_mistake_disturbs_nobody(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    async with traffic(start_cluster, tmp_path, "2.6", Layout.GATE) as made:
        old, new, _ = made.nodes
        undisturbed = len(made.writer.failures)
        await asyncio.to_thread(new.promote)
        await asyncio.to_thread(made.agents[1].wait_for, "/primary", 503, "lost_conflict")
        await asyncio.sleep(CALM)
        await made.flows(old)
        await made.still(new)
        assert made.writer.failures[undisturbed:] == []
    assert {commit.node for commit in made.writer.commits} == {old.name}


async def test_of_two_nodes_neither_is_written_to_when_both_are_primaries(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    async with traffic(start_cluster, tmp_path, "2.6", Layout.GATE, count=2) as made:
        old, new = made.nodes
        await asyncio.to_thread(new.promote)
        await made.cut(old)
        for agent in made.agents:
            await asyncio.to_thread(agent.wait_for, "/primary", 503, "diverged")
        await made.still(old)
        await made.still(new)
        await asyncio.to_thread(new.stop)  # the person that a `diverged` asks for
        await made.flows(old)
    made.never_two()
    assert {commit.node for commit in made.writer.commits} == {old.name}


@pytest.mark.parametrize(
    "fault", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP], ids=["stopped", "killed", "frozen"]
)
async def test_an_agent_that_falls_silent_and_returns(
    start_cluster: StartCluster, tmp_path: Path, fault: signal.Signals
) -> None:
    async with traffic(start_cluster, tmp_path, "2.6", Layout.GATE) as made:
        primary, agent = made.nodes[0], made.agents[0]
        agent.signal(fault)
        await made.cut(primary)
        if fault is signal.SIGSTOP:
            agent.signal(signal.SIGCONT)
        else:
            agent.wait()
            await asyncio.to_thread(agent.start)
        await made.flows(primary)
    made.never_two()
    assert {commit.node for commit in made.writer.commits} == {primary.name}


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_promotion_while_the_agent_of_a_living_primary_is_silent(
    start_cluster: StartCluster, tmp_path: Path, fault: signal.Signals
) -> None:
    async with traffic(start_cluster, tmp_path, "2.6", Layout.GATE) as made:
        old, new, other = made.nodes
        agent = made.agents[0]
        agent.signal(fault)
        await asyncio.to_thread(take_over, new, other)
        await made.flows(new)
        assert made.sessions(old) == 0
        await made.still(old)
        if fault is signal.SIGKILL:
            agent.wait()
            await asyncio.to_thread(agent.start)
        else:
            agent.signal(signal.SIGCONT)
        await asyncio.to_thread(agent.wait_for, "/primary", 503, "stale_timeline")
        await made.flows(new)
        assert made.proxy.up("pg_primary") == {new.name}
    made.one_handover(old, new)


@pytest.mark.parametrize("again", ["start", "reload"])
async def test_haproxy_starts_and_reloads_in_every_phase_of_a_failover(
    start_cluster: StartCluster, tmp_path: Path, again: str
) -> None:
    async with traffic(start_cluster, tmp_path, "2.6", Layout.GATE) as made:

        async def once_more() -> None:
            if again == "start":
                await asyncio.to_thread(made.proxy.stop)
                await asyncio.to_thread(made.proxy.start)
            else:
                await asyncio.to_thread(made.proxy.reload)

        old, *standbys = made.nodes
        await once_more()  # all is well
        await made.flows(old)
        await asyncio.to_thread(old.kill9)
        await once_more()  # no primary
        new, _ = await asyncio.to_thread(promote_foremost, standbys)
        await once_more()  # a primary that may not be written to yet
        await made.flows(new)
        await asyncio.to_thread(old.start)
        await once_more()  # a stale primary beside the one that is written to
        await made.flows(new)
        await asyncio.sleep(1.0)
        await made.still(old)
    made.one_handover(old, new)


async def test_a_reload_before_a_promotion_keeps_no_session_longer_than_it_may(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    """The process from before a reload checks nothing, so only `hard-stop-after` ends its sessions."""
    async with traffic(start_cluster, tmp_path, "2.6", Layout.GATE, hard_stop_after="2s") as made:
        old, new, other = made.nodes
        await asyncio.to_thread(made.proxy.reload)
        await asyncio.to_thread(take_over, new, other)
        await made.flows(new)
        await made.still(old)
    made.one_handover(old, new)


@pytest.mark.parametrize(("version", "layout"), [GATE_26, GATE_28, SIMPLE_26])
async def test_an_agent_that_refuses_knows_of_the_sessions_that_it_still_has(
    start_cluster: StartCluster, tmp_path: Path, version: str, layout: Layout
) -> None:
    async with traffic(start_cluster, tmp_path, version, layout, cuts=False) as made:
        primary, agent = made.nodes[0], made.agents[0]
        agent.post("/maintenance", {"on": True})
        await asyncio.to_thread(made.proxy.wait_up, "pg_primary", set())
        await made.flows(primary)  # over what was held before: nothing has cut it
        held = 'healthagent_haproxy_sessions{cluster="main",name="pg1",server="pg_primary/pg1"} 3.0'
        await asyncio.to_thread(until, lambda: held in agent.get("/metrics").json, 5.0, f"metrics say {held}")
        assert agent.get("/primary").status == 503


async def test_a_replica_in_maintenance_drains_and_comes_back_after_its_restart(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    """docs/operating.md, "Taking a node out": reads go to the others first, writes notice nothing."""
    async with traffic(start_cluster, tmp_path, "2.6", Layout.GATE) as made:
        primary, node, other = made.nodes
        agent = made.agents[1]
        await asyncio.to_thread(made.proxy.wait_up, "pg_replica", {node.name, other.name})
        agent.post("/maintenance", {"on": True, "seconds": 600, "why": "minor release"})
        await asyncio.to_thread(made.proxy.wait_up, "pg_replica", {other.name})
        assert agent.get("/replica").json["verdict"]["reason"] == "maintenance"
        await asyncio.to_thread(node.restart)
        await asyncio.to_thread(agent.wait_for, "/health", 200)
        await asyncio.to_thread(made.proxy.wait_up, "pg_replica", {other.name})
        agent.post("/maintenance", {"on": False})
        await asyncio.to_thread(made.proxy.wait_up, "pg_replica", {node.name, other.name})
        await made.flows(primary)
