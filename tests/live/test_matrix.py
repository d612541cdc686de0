"""Every supported major version of PostgreSQL, real ones: what differs between them must not surprise us.

`make matrix` runs these alone. What is missing is fetched once into the checkout's .cache; fetched sets of
12 to 17 lack pg_rewind.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from healthagent.demo.binaries import Missing
from healthagent.demo.cluster import Cluster
from healthagent.demo.fetch import SOURCES, find_or_fetch
from healthagent.demo.postgres import until
from tests.bed.agent import agents_beside

pytestmark = [pytest.mark.live, pytest.mark.matrix]


@pytest.fixture(params=sorted(SOURCES), ids=lambda major: f"PostgreSQL {major}")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A primary (pg1) and two standbys that stream, of each major version."""
    binaries = find_or_fetch(request.param)
    if isinstance(binaries, Missing):
        pytest.fail(binaries.problem, pytrace=False)
    with Cluster(binaries, 3) as made:
        yield made


def test_a_standby_takes_over_and_the_others_follow(cluster: Cluster) -> None:
    old, new, sibling = cluster.nodes
    old.psql("CREATE TABLE written AS SELECT 1")
    new.wait_replayed(old)
    old.kill9()
    new.promote()
    sibling.follow(new)
    if cluster.binaries.major < 13:
        sibling.restart()
    new.wait_streaming(sibling)
    assert new.psql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)") == [("00000002",)]
    if (cluster.binaries.bin / "pg_rewind").exists():
        old.start()
        old.psql("CREATE TABLE written_by_the_old_primary AS SELECT 1")
        old.rewind(new)
        new.wait_streaming(old)


def test_the_agents_see_who_serves_and_a_promotion_at_once(cluster: Cluster, tmp_path: Path) -> None:
    old, new, sibling = cluster.nodes
    with agents_beside(tmp_path, cluster.nodes) as (one, two, three):
        assert one.wait_for("/primary", 200).json["server_version"] // 10000 == cluster.binaries.major
        for agent in (two, three):
            body = agent.wait_for("/replica?lag=1MB", 200).json
            assert (body["timeline"], body["replication_state"]) == (1, "streaming")
            agent.wait_for("/async", 200)
        assert not [alarm for agent in (one, two, three) for alarm in agent.status()["alarms"]]
        old.kill9()
        one.wait_for("/primary", 503, "postgres_down")
        new.promote()
        # pg_control still says 1 until the checkpoint that follows
        until(lambda: two.get("/patroni").json.get("role") == "primary", 5, "the promotion is seen")
        assert two.get("/patroni").json["timeline"] == 2
        sibling.follow(new)
        if cluster.binaries.major < 13:
            sibling.restart()
        two.wait_for("/primary", 200, timeout=30)
        assert three.wait_for("/replica?replication_state=streaming", 200).json["timeline"] == 2
        old.start()
        one.wait_for("/primary", 503, "stale_timeline")
        assert two.get("/primary").status == 200
