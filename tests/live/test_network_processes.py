"""Frozen, killed and misconfigured agents and machines in a cluster of real PostgreSQL.

The numbers are those of the list of faults in test_network_faults.py.
"""

import signal
import time

import pytest

from healthagent.clock import boottime
from healthagent.demo.postgres import until
from tests.bed.site import DRAIN, MOMENT, ROUND, TAKEOVER, Site

pytestmark = pytest.mark.live

UNDISTURBED = {"primary"}


def test_8_a_frozen_agent_that_wakes_up_asks_around_first(site: Site) -> None:
    site.ready()
    agent = site.agents["pg1"]
    agent.signal(signal.SIGSTOP)
    time.sleep(4.0)
    woken_at = boottime()
    agent.signal(signal.SIGCONT)
    site.wait("pg1", "primary", timeout=ROUND + MOMENT)
    assert "start_gate" in site.reasons("pg1") or "postgres_stale" in site.reasons("pg1")
    assert site.services("pg1")[-1].began > woken_at


@pytest.mark.parametrize(
    "what", [pytest.param("agent", id="8 its agent"), pytest.param("machine", id="14 its whole machine")]
)
def test_a_primary_frozen_while_another_takes_over_does_not_wake_up_serving(site: Site, what: str) -> None:
    """Not for one moment, though its peers are slow to answer just then."""
    site.ready()
    agent, node = site.agents["pg1"], site.node("pg1")
    agent.signal(signal.SIGSTOP)
    if what == "machine":
        node.freeze()
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    time.sleep(1.0)
    site.network.delay("pg1", 0.15)
    woken_at = boottime()
    node.thaw()
    agent.signal(signal.SIGCONT)
    site.wait("pg1", "stale_timeline")
    site.network.heal()
    time.sleep(1.0)
    assert "primary" not in site.reasons("pg1", woken_at)
    assert site.reasons("pg2", woken_at) == UNDISTURBED


def test_9_a_killed_agent_serves_again_when_it_is_back(site: Site) -> None:
    site.ready()
    agent = site.agents["pg1"]
    agent.kill()
    agent.start()
    site.wait("pg1", "primary", timeout=2.0 + MOMENT)


def test_10_a_frozen_postgresql_is_refused_and_then_back(site: Site) -> None:
    site.ready()
    frozen_at = boottime()
    site.node("pg1").freeze()
    assert site.wait("pg1", "postgres_stale") - frozen_at < 2.0 + 2 * MOMENT
    time.sleep(1.0)
    site.node("pg1").thaw()
    site.wait("pg1", "primary", timeout=ROUND + 2 * MOMENT)
    assert site.services("pg2") == []


def test_11_28_a_postgresql_that_crashes_again_and_again(site: Site) -> None:
    """Each crash is a 503, each return asks the peers first, and nobody else takes over meanwhile."""
    site.ready()
    for _ in range(3):
        site.node("pg1").kill9()
        site.wait("pg1", "postgres_down")
        site.node("pg1").start()
        site.wait("pg1", "primary", timeout=ROUND + 2 * MOMENT)
    assert len(site.services("pg1")) == 4
    assert site.services("pg2") == site.services("pg3") == []


def test_39_all_agents_restart_at_once(site: Site) -> None:
    site.ready()
    for agent in site.agents.values():
        agent.kill()
    for agent in site.agents.values():
        agent.start(wait=False)
    for agent in site.agents.values():
        agent.wait_answering()
    site.wait("pg1", "primary", timeout=DRAIN + MOMENT)


def test_31_entries_that_lead_elsewhere_are_alarms_and_count_nobody_twice(site: Site) -> None:
    site.ready()
    agent = site.agents["pg1"]
    right = agent.settings["peers"]
    wrong = [site.entry("pg2"), site.entry("pg3", at="w1"), site.entry("pg9", at="pg1")]
    try:
        agent.reload(peers=wrong)
        until(lambda: _unfit(site) == {"pg3", "pg9"}, 5.0, "the wrong entries are alarms")
        assert site.heard("pg1") == 2
        time.sleep(1.0)
        assert site.reasons("pg1") == UNDISTURBED
    finally:
        agent.reload(peers=right)
    until(lambda: site.heard("pg1") == 4, 5.0, "pg1 hears all again")


def test_32_a_member_that_does_not_know_the_primary(site: Site) -> None:
    """It can learn nothing of it; the primary asks it, and yields within one round of its first 200."""
    site.ready()
    agent = site.agents["pg2"]
    agent.reload(peers=[site.entry("pg3"), site.entry("w1")])
    alarm = "peer pg2: has another list of members; compare the `peers` of both"
    until(lambda: alarm in site.agents["pg1"].status()["alarms"], 5.0, "pg1 has an alarm")
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    site.overlap_until = site.services("pg2")[0].began + ROUND
    site.wait("pg1", "stale_timeline")
    time.sleep(TAKEOVER)
    assert site.reasons("pg2", boottime() - 1.0) == UNDISTURBED


def test_33_two_hosts_of_one_name(site: Site) -> None:
    site.ready()
    twin = site.agents["pg3"]
    try:
        twin.change({"name": "pg2", "peers": [site.entry("pg1"), site.entry("pg2"), site.entry("w1")]})
        twin.restart()
        until(lambda: _unfit(site) == {"pg3"}, 5.0, "pg1 has an alarm for the entry")
        assert site.heard("pg1") == 3
        site.node("pg3").promote()
        site.wait("pg3", "diverged")  # nobody can tell whom a node of an ambiguous name stands for
        time.sleep(DRAIN)
    finally:
        twin.change({"name": "pg3", "peers": [site.entry("pg1"), site.entry("pg2"), site.entry("w1")]})
    assert site.services("pg3") == []
    assert site.reasons("pg1") == UNDISTURBED


def _unfit(site: Site) -> set[str]:
    """The entries that lead pg1 to somebody else."""
    return {peer["name"] for peer in site.agents["pg1"].status()["peers"] if peer["alarm"]}
