"""What live tests of several modules share.

def test_x(site): site.ready(); ...   # tests.bed.site.Site, hosts in namespaces; judged when it has passed
def test_x(bed): bed.start_agents(); ...  # tests.bed.bridge.Bed with three nodes; `pair` has two
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from healthagent.demo.binaries import Binaries
from healthagent.demo.cluster import Template
from tests.bed.bridge import Bed
from tests.bed.network import missing
from tests.bed.site import Site
from tests.conftest import StartCluster


@pytest.fixture(scope="session")
def shared_site(
    binaries: Binaries, template: Template, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    problem = missing()
    if problem is not None and os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip(problem)
    if problem is not None:
        pytest.fail(problem, pytrace=False)
    with Site(binaries, template, lambda: tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The site; after the test every answer of every agent is judged, and everything is healed."""
    try:
        yield shared_site
        shared_site.judge()
    finally:
        shared_site.settle()


@pytest.fixture
def bed(start_cluster: StartCluster, tmp_path: Path) -> Iterator[Bed]:
    with ExitStack() as stack:
        made = Bed(start_cluster(3), tmp_path, stack)
        yield made
        made.stop()


@pytest.fixture
def pair(start_cluster: StartCluster, tmp_path: Path) -> Iterator[Bed]:
    with ExitStack() as stack:
        made = Bed(start_cluster(2), tmp_path, stack)
        yield made
        made.stop()
