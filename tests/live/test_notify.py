"""The agent under a service manager: when it is ready, what feeds its watchdog and what starves it."""

import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from healthagent.clock import boottime
from healthagent.demo.postgres import Node, until
from healthagent.notify import SLACK
from tests.bed.agent import Agent
from tests.bed.command import healthagent
from tests.bed.manager import Manager

pytestmark = pytest.mark.live

PERIOD = 1.0  # seconds, as WatchdogSec=1
BUDGET = 1.5  # seconds: the interval and the time-out of a poll, by default
LONG = 3 * PERIOD  # seconds after which systemd would long have killed a service that feeds nothing


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path / "notify") as manager:
        yield manager


def managed(folder: Path, manager: Manager, node: Node | None, **settings: object) -> Agent:
    return Agent(folder, node, settings=settings, environment=manager.environment(watchdog=PERIOD))


def longest_hunger(manager: Manager, seconds: float) -> float:
    """Watch for so long: the longest time without a meal."""
    since = boottime()

    def is_over() -> bool:
        manager.read()
        return boottime() - since >= seconds

    until(is_over, 2 * seconds, "the time has passed")
    meals = [at for at, told in manager.told if told == "WATCHDOG=1" and at >= since]
    return max(after - before for before, after in pairwise([since, *meals, boottime()]))


def test_a_life(tmp_path: Path, postgres: Node, manager: Manager) -> None:
    with managed(tmp_path, manager, postgres) as agent:
        manager.wait("READY=1")
        assert agent.get("/primary").reason != "starting_up", "ready before PostgreSQL was asked"
        manager.wait("WATCHDOG=1", 3)
        agent.wait_for("/primary", 200)
        until(
            lambda: manager.statuses()[-1:] == ["/primary 200 primary: primary on timeline 1"], 5.0, "shown"
        )
        agent.reload(drain="4s")
        manager.wait("READY=1", 2)
        agent.reload(drain="no duration")
        manager.wait("READY=1", 3)
        assert agent.stop() == 0
    states = ["READY=1", *["RELOADING=1", "READY=1"] * 2, "STOPPING=1"]
    assert manager.states() == states
    assert manager.statuses()[-1].startswith("/primary 503 stopping: ")


def test_a_dead_postgresql_does_not_starve_the_watchdog(
    tmp_path: Path, postgres: Node, manager: Manager
) -> None:
    with managed(tmp_path, manager, postgres) as agent:
        agent.wait_for("/primary", 200)
        postgres.stop("immediate")
        agent.wait_for("/primary", 503, "postgres_down")
        assert longest_hunger(manager, LONG) < LONG / 2


def test_a_frozen_postgresql_does_not_either(tmp_path: Path, postgres: Node, manager: Manager) -> None:
    postgres.freeze()
    try:
        with managed(tmp_path, manager, postgres) as agent:
            manager.wait("READY=1")
            assert agent.get("/primary").reason == "postgres_stale"
            assert longest_hunger(manager, LONG) < LONG / 2
    finally:
        postgres.thaw()


def test_a_poller_that_is_stuck_starves_it(tmp_path: Path, postgres: Node, manager: Manager) -> None:
    stuck = tmp_path / "stuck"
    agent = managed(tmp_path, manager, postgres)
    agent.program = (sys.executable, "-m", "tests.bed.stuck_agent")
    agent.environment["STUCK"] = str(stuck)
    with agent:
        manager.wait("WATCHDOG=1", 3)
        stuck.touch()
        agent.wait_for("/primary", 503, "postgres_stale")
        until(lambda: longest_hunger(manager, LONG) >= LONG, BUDGET + SLACK + 4 * LONG, "nothing is fed")
        assert agent.get("/liveness").status == 200, "the loop turns: only the poller is stuck"
        fed = manager.count("WATCHDOG=1")
        stuck.unlink()
        manager.wait("WATCHDOG=1", fed + 1)


def test_a_process_that_stands_still_starves_it(tmp_path: Path, postgres: Node, manager: Manager) -> None:
    with managed(tmp_path, manager, postgres) as agent:
        manager.wait("WATCHDOG=1", 3)
        agent.signal(signal.SIGSTOP)
        until(lambda: longest_hunger(manager, LONG) >= LONG, 4 * LONG, "nothing is fed")
        fed = manager.count("WATCHDOG=1")
        agent.signal(signal.SIGCONT)
        manager.wait("WATCHDOG=1", fed + 1)


def test_a_witness_is_ready_at_once(tmp_path: Path, manager: Manager) -> None:
    with managed(
        tmp_path, manager, None, witness=True, peers=[{"name": "pg1", "url": "http://127.0.0.1:1"}]
    ) as agent:
        manager.wait("WATCHDOG=1", 3)
        assert agent.stop() == 0
    assert manager.states() == ["READY=1", "STOPPING=1"]


def test_a_manager_that_is_away_harms_nothing(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres, environment={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with agent:
        agent.wait_for("/primary", 200)
        assert agent.stop() == 0
    assert agent.log().count("cannot be notified") == 1


def test_the_bridge_beside_pgpool(tmp_path: Path, manager: Manager) -> None:
    """Which follows even where pgpool and the agents are away: that is no reason to restart it."""
    options = (
        "--agent=pg1=http://127.0.0.1:1",
        "--pcp-host=127.0.0.1",
        "--pcp-port=1",
        "--listen=127.0.0.1:0",
    )
    environment = manager.environment(watchdog=PERIOD)
    with healthagent(tmp_path / "bridge.log", "pgpool-sync", *options, **environment) as bridge:
        manager.wait("READY=1")
        assert longest_hunger(manager, LONG) < LONG / 2
        bridge.terminate()
        assert bridge.wait(10) == 0, (tmp_path / "bridge.log").read_text()
    assert manager.states() == ["READY=1", "STOPPING=1"]
