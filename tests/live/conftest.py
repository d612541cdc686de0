"""The site of the tests of network faults: hosts in network namespaces, shared by all of them.

def test_x(site): site.ready(); ...     # tests.bed.site.Site; judged when the test has passed
"""

import os
from collections.abc import Iterator

import pytest

from healthagent.demo.binaries import Binaries
from healthagent.demo.cluster import Template
from tests.bed.network import missing
from tests.bed.site import Site


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
