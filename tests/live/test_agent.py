"""The agent on a real PostgreSQL: what it answers while the server is well, frozen, killed, full or wrong."""

from pathlib import Path

import pytest

from healthagent.demo.cluster import Cluster
from healthagent.demo.postgres import Node
from tests.bed.agent import Agent, agents_beside

pytestmark = pytest.mark.live


def test_a_primary_alone_serves_and_stops(tmp_path: Path, postgres: Node) -> None:
    with Agent(tmp_path, postgres) as agent:
        status, headers, body = agent.wait_for("/primary", 200)
        assert (status, body["role"], headers["X-Healthagent-Reason"]) == (200, "primary", "primary")
        assert agent.get("/replica").reason == "not_replica"
        assert agent.stop() == 0


def test_of_two_nodes_one_serves_writes_and_the_other_reads(tmp_path: Path, streaming: Cluster) -> None:
    with agents_beside(tmp_path, streaming.nodes) as (primary, replica):
        primary.wait_for("/primary", 200)
        replica.wait_for("/replica", 200)
        assert replica.get("/primary").reason == "not_primary"
