"""The command line against a real agent: exit codes, words, and how long an exec probe takes to start."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from healthagent.demo.binaries import Binaries
from healthagent.demo.cluster import Cluster, Template
from tests.bed.agent import Agent, agents_beside
from tests.bed.command import HEALTHAGENT, ran

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def agents(
    tmp_path_factory: pytest.TempPathFactory, binaries: Binaries, template: Template
) -> Iterator[list[Agent]]:
    """A primary and its replica."""
    with (
        Cluster(binaries, 2, template=template) as cluster,
        agents_beside(tmp_path_factory.mktemp("agents"), cluster.nodes) as started,
    ):
        started[0].wait_for("/primary", 200)
        started[1].wait_for("/async", 200)
        yield started


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["primary"], 0, "primary: primary on timeline 1\n", id="yes"),
        pytest.param(
            ["replica"], 1, "not_replica: PostgreSQL is not in recovery: a primary\n", id="no, and why"
        ),
        pytest.param(["liveness"], 0, "running: the agent runs\n", id="liveness"),
        pytest.param(["replica", "--lag", "1mb"], 2, "lag: unknown unit 'mb'", id="a lag that is not one"),
        pytest.param(["replica", "--lag", ""], 2, "lag: want bytes", id="an empty lag"),
        pytest.param(["primary", "--url", "http://127.0.0.1:1"], 3, "unreachable: ", id="nobody there"),
        pytest.param(["primary", "--url", "127.0.0.1:8008"], 2, "--url: want http://", id="no URL"),
        pytest.param(["primary", "--url", "http://127.0.0.1:99999"], 2, "--url: want", id="no port"),
    ],
)
def test_check(agents: list[Agent], arguments: list[str], code: int, said: str) -> None:
    url = () if "--url" in arguments else ("--url", agents[0].url)
    result = ran("check", *arguments, *url)
    assert result.returncode == code
    assert (result.stdout + result.stderr).startswith(said)


def test_the_agents_own_configuration_says_whom_to_ask(agents: list[Agent]) -> None:
    assert ran("check", "replica", "--lag", "16MB", "-c", str(agents[1].config)).returncode == 0
    assert ran("check", "primary", HEALTHAGENT_LISTEN=f"0.0.0.0:{agents[1].port}").returncode == 1


def test_list(agents: list[Agent]) -> None:
    said = ran("list", "--url", agents[1].url).stdout.splitlines()
    assert said[0].split() == ["Member", "Host", "Role", "State", "TL", "Lag", "Writes", "Reads", "Reason"]
    rows = {line.split()[0]: line.split() for line in said[1:]}
    assert rows["pg1"][2:] == ["leader", "running", "1", "yes", "no", "primary"]
    assert rows["pg2"][2:] == ["replica", "streaming", "1", "0", "no", "yes", "replica"]


def test_list_watch_ends_with_its_reader(agents: list[Agent]) -> None:
    command = [*HEALTHAGENT, "list", "--watch", "--url", agents[0].url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        datetime.fromisoformat(watching.stdout.readline().strip())
        assert watching.stdout.readline().startswith("Member ")
        watching.stdout.close()  # as `| head -1` does
        assert watching.wait(10) == 1
        assert "Traceback" not in watching.stderr.read()


def test_an_exec_probe_imports_little(agents: list[Agent]) -> None:
    durations = []
    for _ in range(5):
        began = time.monotonic()
        assert ran("check", "liveness", "--url", agents[0].url).returncode == 0
        durations.append(time.monotonic() - began)
    print(f"\nhealthagent check: median {statistics.median(durations) * 1e3:.0f} ms")
    code = (
        "import sys; sys.argv[1:] = ['check', 'liveness', '--url', sys.argv[1]]\n"
        "from healthagent.commands import main\n"
        "try: main()\n"
        "except SystemExit: print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, agents[0].url], capture_output=True, text=True, check=True, timeout=20
    ).stdout.split()
    heavy = {"aiohttp", "asyncio", "asyncpg", "yaml", "msgspec", "prometheus_client", "uvloop"}
    assert not heavy & set(loaded)
