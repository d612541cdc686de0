"""The recording writer on real PostgreSQL through real HAProxy, with agents that say what they are told."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from healthagent.haproxy.nodes import HaproxyNode
from healthagent.haproxy.options import Options
from healthagent.haproxy.render import render
from tests.bed.haproxy import Haproxy, Missing, find_haproxy, socket_of
from tests.bed.stub_agent import StubAgent
from tests.bed.writer import TABLE, Writer, handovers, overlaps, superseded
from tests.conftest import StartCluster

pytestmark = pytest.mark.live


async def test_a_promotion_behind_the_gate_is_recorded_as_one_handover(
    start_cluster: StartCluster, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    found = find_haproxy("2.6")
    if isinstance(found, Missing):
        pytest.fail(found.problem, pytrace=False)
    cluster = await asyncio.to_thread(start_cluster, 2)
    old, new = cluster.nodes
    await asyncio.to_thread(old.psql, TABLE)
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(StubAgent(role=role)) for role in ("primary", "replica")]
        servers = [
            HaproxyNode(node.name, node.host, node.port, agent.http_port, agent.agent_port)
            for node, agent in zip(cluster.nodes, agents, strict=True)
        ]
        options = Options(
            bind="127.0.0.1",
            write_port=free_port(),
            read_port=free_port(),
            stats_port=free_port(),
            gate_port=free_port(),
            admin_socket=str(socket_of(tmp_path)),
            user="",
        )
        proxy = Haproxy(found, render(servers, options), tmp_path)
        stack.callback(proxy.stop)
        await asyncio.to_thread(proxy.start)
        async with Writer(options.write_port) as writer:
            await writer.wait_commits(20)
            agents[0].role = "down"
            await asyncio.to_thread(new.promote)
            agents[1].role = "primary"
            await writer.wait_commits(20, node=new.name)
    [handover] = handovers(writer.commits)
    assert (handover.old.node, handover.old.timeline) == ("pg1", 1)
    assert (handover.new.node, handover.new.timeline) == ("pg2", 2)
    assert handover.outage > 0
    assert overlaps(writer.commits) == []
    assert superseded(writer.commits) == []
    assert writer.reached_a_replica() == []
    assert {commit.session for commit in writer.commits} == {"held1", "held2", "held3", "fresh1"}
    assert any(not failure.connecting for failure in writer.failures)  # held sessions were cut


async def test_writes_on_both_sides_of_a_split_brain_are_seen(start_cluster: StartCluster) -> None:
    """Without a proxy that refuses, the checks must complain."""
    cluster = await asyncio.to_thread(start_cluster, 2)
    old, new = cluster.nodes
    await asyncio.to_thread(old.psql, TABLE)
    async with Writer(old.port) as first:
        await first.wait_commits(5)
        await asyncio.to_thread(new.promote)
        async with Writer(new.port) as second:
            await second.wait_commits(5)
            await first.wait_commits(5)
    commits = [*first.commits, *second.commits]
    assert [(one.node, other.node) for one, other in overlaps(commits)] == [("pg1", "pg2")]
    assert superseded(commits)
    assert {commit.timeline for commit in superseded(commits)} == {1}


async def test_writes_that_reach_a_replica_are_told_apart(start_cluster: StartCluster) -> None:
    cluster = await asyncio.to_thread(start_cluster, 2)
    await asyncio.to_thread(cluster.nodes[0].psql, TABLE)
    await asyncio.to_thread(cluster.nodes[1].wait_replayed, cluster.nodes[0])
    async with Writer(cluster.nodes[1].port) as writer:
        await writer.wait_failures(5)
    assert len(writer.reached_a_replica()) >= 5
    assert writer.commits == []
