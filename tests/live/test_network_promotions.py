"""Promotions, meant and by mistake, and old primaries that return: real PostgreSQL, one agent a host.

The numbers are those of the list of faults in test_network_faults.py.
"""

import time

import pytest

from healthagent.clock import boottime
from tests.bed.site import DRAIN, MOMENT, TAKEOVER, Site, gap

pytestmark = pytest.mark.live

UNDISTURBED = {"primary"}


def test_25_a_standby_promoted_by_mistake_never_serves(site: Site) -> None:
    """Nor when the one follower's agent dies, nor while the rightful primary or its agent restarts."""
    site.ready({"takeover_after": "20s"})  # an agent's start takes seconds where there are few cores
    site.node("pg2").promote()
    site.wait("pg2", "lost_conflict")
    time.sleep(1.0)
    site.agents["pg3"].kill()
    time.sleep(TAKEOVER)
    assert site.reasons("pg1") == UNDISTURBED
    site.node("pg1").restart("immediate")
    site.wait("pg1", "primary", timeout=TAKEOVER)
    time.sleep(1.0)
    site.agents["pg1"].kill()
    site.agents["pg1"].start()
    site.wait("pg1", "primary", timeout=TAKEOVER)
    time.sleep(1.0)
    assert site.services("pg2") == [], "pg2 took over"


def test_a_dead_agent_beside_a_follower_disturbs_nobody(site: Site) -> None:
    site.ready()
    site.agents["pg3"].kill()
    time.sleep(DRAIN)
    site.agents["pg3"].start()
    time.sleep(DRAIN)
    assert site.reasons("pg1") == UNDISTURBED


def test_38_the_followers_of_the_new_primary_make_it_the_rightful_one(site: Site) -> None:
    """A handover with both alive: the old one refuses, and its clients leave, the new one serves."""
    site.ready()
    site.node("pg3").follow(site.node("pg2"))
    site.node("pg2").wait_streaming(site.node("pg3"))
    time.sleep(1.0)
    assert site.reasons("pg1") == UNDISTURBED
    promoted_at = boottime()
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    assert gap(site.services("pg1"), site.services("pg2")) > DRAIN - MOMENT / 10
    assert site.services("pg2")[0].began - promoted_at < DRAIN + 1 + 4 * MOMENT
    site.wait("pg1", "stale_timeline")


@pytest.mark.parametrize("agent_too", [False, True], ids=["the agent stays", "the agent starts too"])
def test_19_an_old_primary_that_returns_never_serves(site: Site, agent_too: bool) -> None:
    site.ready()
    site.node("pg1").kill9()
    if agent_too:
        site.agents["pg1"].kill()
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    site.watch()
    site.node("pg1").start()
    if agent_too:
        site.agents["pg1"].start()
    site.wait("pg1", "stale_timeline")
    time.sleep(2.0)
    assert site.services("pg1") == []
    assert site.reasons("pg2") == UNDISTURBED


def test_20_an_old_primary_returns_when_only_the_witness_remembers_the_newer_one(site: Site) -> None:
    site.ready(nodes=2)
    site.kill("pg1")
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    time.sleep(1.0)  # the witness hears of it
    site.kill("pg2")
    for file in site.agents["pg1"].state_dir.iterdir():
        file.unlink()
    site.watch("pg1")
    site.agents["pg1"].start()
    site.node("pg1").start()
    site.wait("pg1", "stale_timeline")
    time.sleep(DRAIN + 2.0)
    assert site.services("pg1") == []


@pytest.mark.parametrize(
    ("witness", "outcome"),
    [
        pytest.param(False, "primary", id="of two members: after a while alone"),
        pytest.param(True, "isolated_at_start", id="of three members: never"),
    ],
)
def test_21_a_primary_that_starts_alone(site: Site, witness: bool, outcome: str) -> None:
    site.ready(nodes=2, witness=witness)
    site.kill("pg1", "pg2")
    site.network.cut(["pg1"])
    time.sleep(TAKEOVER)
    started_at = boottime()
    site.watch("pg1")
    site.node("pg1").start()
    site.agents["pg1"].start()
    site.wait("pg1", outcome)
    if witness:
        time.sleep(TAKEOVER)
        assert site.services("pg1") == []
    else:
        assert site.services("pg1")[0].began - started_at > 4.0
        assert "start_alone" in site.reasons("pg1")


def test_22_two_standbys_promoted_in_the_same_instant(site: Site) -> None:
    """To the same timeline; nobody streams from either and neither has served: a person must choose."""
    site.ready()
    site.kill("pg1")
    site.promote_at_once("pg2", "pg3")
    for name in ("pg2", "pg3"):
        site.wait(name, "diverged")
    time.sleep(DRAIN + 2.0)
    assert site.services("pg2") == site.services("pg3") == []
    site.node("pg3").stop()
    site.wait("pg2", "primary", timeout=TAKEOVER + DRAIN + 2.0)


def test_23_a_standby_started_as_a_primary_on_the_same_timeline(site: Site) -> None:
    site.ready()
    node = site.node("pg2")
    node.stop()
    (node.data / "standby.signal").unlink()
    node.start()
    site.wait("pg2", "lost_conflict")
    time.sleep(DRAIN + 1.0)
    assert site.services("pg2") == []
    assert site.reasons("pg1") == UNDISTURBED


def test_26_a_switchover_and_the_old_primary_follows(site: Site) -> None:
    site.ready()
    old, new, sibling = (site.node(name) for name in ("pg1", "pg2", "pg3"))
    old.stop()
    new.promote()
    sibling.follow(new)
    site.wait("pg2", "primary")
    assert gap(site.services("pg1"), site.services("pg2")) < DRAIN + 1 + 4 * MOMENT
    old.rewind(new)
    new.wait_streaming(old, sibling)
    for name in ("pg1", "pg3"):
        site.agents[name].wait_for("/replica", 200, "replica")
    assert len(site.services("pg2")) == 1


def test_two_members_that_diverged_stay_so_through_restarts_of_their_agents(site: Site) -> None:
    """What one agent forgets must not make it the winner; only stopping one PostgreSQL ends it."""
    site.ready(nodes=2, witness=False)
    site.node("pg2").promote()
    for name in ("pg1", "pg2"):
        site.wait(name, "diverged")
    time.sleep(1.0)  # the state files are written
    since = boottime()
    for name in ("pg1", "pg2"):
        site.agents[name].kill()
        site.agents[name].start()
        site.wait(name, "diverged")
        time.sleep(TAKEOVER + 1.0)
    assert "primary" not in site.reasons("pg1", since) | site.reasons("pg2", since)
    site.node("pg2").stop()
    site.wait("pg1", "primary", timeout=TAKEOVER + DRAIN + 2.0)
