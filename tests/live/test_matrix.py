"""Every supported major version of PostgreSQL, real ones: what differs between them must not surprise us.

`make matrix` runs these alone. What is missing is fetched once into the checkout's .cache; fetched sets of
12 to 17 lack pg_rewind.
"""

from collections.abc import Iterator

import pytest

from healthagent.demo.binaries import Missing
from healthagent.demo.cluster import Cluster
from healthagent.demo.fetch import SOURCES, find_or_fetch

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
