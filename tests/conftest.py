"""What tests of several modules share: the --rewrite option, free ports, and real PostgreSQL servers.

For a live test (tests/live/, `pytestmark = pytest.mark.live`):

    def test_x(postgres): ...       # a primary: healthagent.demo.postgres.Node
    def test_x(streaming): ...      # healthagent.demo.cluster.Cluster; primary, replica = streaming.nodes
    def test_x(start_cluster): ...  # start_cluster(3), start_cluster(2, settings={"max_connections": 20})

Each is fresh for each test (0.2 to 0.5 s) and is gone after it, whatever the test did to it.
The API is in the docstrings of Node and Cluster. It blocks; from an async test call what takes
long through `asyncio.to_thread`.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from healthagent.demo import ports
from healthagent.demo.binaries import Binaries, Missing
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.fetch import find_or_fetch
from healthagent.demo.postgres import Node, Place

# A busy machine is slow, and no bug. And the same examples each time: what is red was broken by the change.
# `make nightly` looks for new ones.
ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", ANY_MACHINE, derandomize=True)
settings.register_profile("fresh", ANY_MACHINE, derandomize=False, max_examples=2000)
settings.load_profile("same")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started with `&` by a script: the programs that tests end with Ctrl-C would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --rewrite` writes what stories print now; commit only changes that you understand and want."""
    parser.addoption("--rewrite", action="store_true", help="rewrite the expected output of tests/stories")


def pytest_configure(config: pytest.Config) -> None:
    """Workers of one run share the ports out among them."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        ports.share(int(worker["workerid"].removeprefix("gw")), worker["workercount"])


@pytest.fixture(scope="session")
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether to rewrite expected output instead of comparing with it."""
    return bool(request.config.getoption("--rewrite"))


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """The PostgreSQL that live tests run, fetched if there is none; they fail, with the cure, without."""
    found = find_or_fetch()
    if isinstance(found, Missing):
        pytest.fail(found.problem, pytrace=False)
    return found


@pytest.fixture(scope="session")
def template(binaries: Binaries) -> Iterator[Template]:
    """An initialised data directory for all clusters of the run; they share one system identifier."""
    with Template(binaries) as made:
        yield made


StartCluster = Callable[..., Cluster]


@pytest.fixture
def start_cluster(binaries: Binaries, template: Template) -> Iterator[StartCluster]:
    """Start clusters: `start_cluster(nodes=3, settings=None, same_system=True) -> Cluster`, see Cluster.

    With same_system=False, or with settings, it has a system identifier of its own, and takes 0.6 s more.
    """
    with ExitStack() as started:

        def start(
            nodes: int | Sequence[Place] = 3,
            *,
            settings: dict[str, str | int] | None = None,
            same_system: bool = True,
        ) -> Cluster:
            cluster = Cluster(binaries, nodes, settings=settings, template=template if same_system else None)
            return started.enter_context(cluster)

        yield start


@pytest.fixture
def postgres(start_cluster: StartCluster) -> Node:
    """A fresh primary on a free port."""
    return start_cluster(1).nodes[0]


@pytest.fixture
def streaming(start_cluster: StartCluster) -> Cluster:
    """A fresh primary with one replica that streams: `primary, replica = streaming.nodes`."""
    return start_cluster(2)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Ports for servers that a test starts: `free_port()`, different at each call."""
    return ports.free_port
