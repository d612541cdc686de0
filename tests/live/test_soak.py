"""A short soak with each run of the tests; `make soak` has the long one."""

from pathlib import Path

import pytest

from tests.bed.agent import agents_beside
from tests.conftest import StartCluster
from tests.soak.__main__ import soak

pytestmark = pytest.mark.live

SECONDS = 30.0


async def test_under_load_while_everything_fails(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(3)
    with agents_beside(tmp_path, cluster.nodes) as agents:
        agents[0].wait_for("/primary", 200)
        for agent in agents[1:]:
            agent.wait_for("/replica", 200)
        outcome = await soak(cluster, agents, SECONDS, rate=150.0, seed=1)
    assert outcome.complaints == [], outcome.summary
