"""Cuts, loss and delay between real agents beside real PostgreSQL, in network namespaces.

Of the forty faults that a health check must stand, those of the network are here, promotions and
returns in test_network_promotions.py, processes and machines in test_network_processes.py. The rest:

    7  HAProxy cut off: no verdict depends on who asks; what an operator then does is fault 25
   12  wall clock set: no decision reads it, see the import contract of healthagent.core
   13  clock rates differ: ages are told, never instants, tests/test_wire.py
   17  a peer that trickles, floods or says nothing: tests/test_peer_client.py, tests/live/test_peers.py
   18  names: tests/test_resolve.py
   24  promotion in the middle of a poll: every promotion here, looked at each 5 ms
   27  no connection slot left: tests/live/test_postgres.py, test_agent.py
   28  WAL disk full: tests/live/test_agent.py; the flapping itself is fault 11
   29  stalled storage: the poll reads memory only, tests/test_postgres_statement.py
   30  passwords, pg_hba.conf, privileges: tests/live/test_postgres.py
   34  checkpoint long after the promotion, 35 timelines 9 to 10 and 15 to 16: tests/live/test_postgres.py
   36  agents of several versions: tests/test_wire.py
   37  many, slow and broken clients: tests/live/test_http_hostile.py
   40  blocked event loop: to everybody else the frozen agent of fault 8

In each test every agent is asked for /primary each 5 ms, and all answers are judged on one clock: never
two at 200, never a timeline older than one already served, no answer that waits (Site.judge).
"""

import time

import pytest

from healthagent.clock import boottime
from healthagent.demo.postgres import until
from tests.bed.site import DRAIN, MOMENT, PORT, ROUND, Site, gap

pytestmark = pytest.mark.live

UNDISTURBED = {"primary"}
POSTGRES = 5432
A_WHILE = 4.0  # seconds: longer than drain, peer.max_age and the age of a round


def let_pass(seconds: float) -> None:
    """Let time pass in which nothing may happen."""
    time.sleep(seconds)


@pytest.mark.parametrize(
    "direction",
    [
        pytest.param("both", id="1, 16 no packet passes"),
        pytest.param("out", id="3 nothing leaves the primary"),
        pytest.param("in", id="3 nothing reaches the primary"),
    ],
)
def test_an_isolated_primary_goes_on_and_is_heard_soon_after(site: Site, direction: str) -> None:
    site.ready()
    if direction == "in":
        site.network.cut(site.others("pg1"), ["pg1"], one_way=True)
    else:
        site.network.cut(["pg1"], one_way=direction == "out")
    let_pass(A_WHILE)
    assert site.heard("pg1") == 1
    assert site.heard("pg2") == 3
    site.network.heal()
    # a connection that died half-open costs one time-out, no more
    until(lambda: site.heard("pg1") == site.heard("pg2") == 4, 2 * ROUND + MOMENT, "all hear each other")
    assert site.reasons("pg1") == UNDISTURBED


@pytest.mark.parametrize("how", ["tcp-reset", "admin-prohibited"])
def test_a_firewall_that_refuses_is_as_one_that_drops(site: Site, how: str) -> None:
    site.ready()
    for name in site.others("pg1"):
        site.network.refuse(name, PORT, how)  # type: ignore[arg-type]  # the two words are the parameters
    until(lambda: site.heard("pg1") == 1, ROUND + 2 + MOMENT, "pg1 hears nobody")
    let_pass(1.0)
    assert site.reasons("pg1") == UNDISTURBED


@pytest.mark.parametrize(
    ("seconds", "jitter", "loss"),
    [
        pytest.param(0.25, 0.0, 100, id="15 half a second there and back"),
        pytest.param(0.05, 0.2, 100, id="15 jitter"),
        pytest.param(1.0, 0.0, 100, id="15 two seconds there and back, longer than the time-out"),
        pytest.param(0.0, 0.0, 30, id="15 every third packet lost"),
    ],
)
def test_a_slow_or_lossy_network_disturbs_nobody(
    site: Site, seconds: float, jitter: float, loss: int
) -> None:
    site.ready()
    if loss < 100:
        site.network.cut(["pg1"], loss=loss)
    else:
        site.network.delay("pg1", seconds, jitter)
    let_pass(A_WHILE)
    assert site.reasons("pg1") == UNDISTURBED
    assert site.heard("pg1") == (1 if seconds >= 1 else 4) or loss < 100


def test_6_only_postgresql_is_cut_off(site: Site) -> None:
    site.ready()
    site.network.cut(["pg1"], port=POSTGRES)
    let_pass(A_WHILE)
    assert site.reasons("pg1") == UNDISTURBED
    assert site.heard("pg1") == 4


def test_2_promotion_on_the_side_of_the_minority(site: Site) -> None:
    """It never answers 200: neither alone, nor when the others are back, who went on."""
    site.ready()
    site.network.cut(["pg2"])
    site.node("pg2").promote()
    site.wait("pg2", "isolated_at_start")
    let_pass(DRAIN)
    site.network.heal()
    site.wait("pg2", "lost_conflict")
    let_pass(1.0)
    assert site.services("pg2") == []
    assert site.reasons("pg1") == UNDISTURBED


@pytest.mark.parametrize("secret", [False, True], ids=["GET", "signed POST"])
def test_2_promotion_on_the_side_of_the_majority(site: Site, secret: bool) -> None:
    """Both serve while nothing passes between them; one round after the heal only the newer one may."""
    site.ready(secret=secret)
    site.network.cut(["pg1"])
    cut_at = boottime()
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    assert site.services("pg2")[0].began - cut_at > DRAIN
    assert site.reasons("pg1") == UNDISTURBED
    site.network.heal()
    site.overlap_until = boottime() + ROUND + MOMENT
    site.wait("pg1", "stale_timeline", timeout=ROUND + MOMENT)
    site.wait("pg2", "rival_draining", timeout=ROUND + MOMENT)  # pg1's clients are still leaving
    site.wait("pg2", "primary", timeout=DRAIN + ROUND + MOMENT)
    let_pass(1.2)
    assert site.reasons("pg1", boottime() - 1.0) == {"stale_timeline"}
    assert site.reasons("pg2", boottime() - 1.0) == UNDISTURBED


def test_isolation_demote_hands_over_without_overlap(site: Site) -> None:
    """An isolated primary steps down, and long before that moment nobody else may serve."""
    site.ready({"isolation": "demote"})
    site.network.cut(["pg1"])
    site.node("pg2").promote()
    site.wait("pg1", "isolated")
    site.wait("pg2", "primary")
    assert gap(site.services("pg1"), site.services("pg2")) > DRAIN
    site.network.heal()
    site.wait("pg1", "stale_timeline")
    let_pass(1.0)
    assert site.reasons("pg2", boottime() - 1.0) == UNDISTURBED


@pytest.mark.parametrize("secret", [False, True], ids=["GET", "signed POST"])
@pytest.mark.parametrize("kind", ["agents", "SYN"])
def test_4_the_primary_can_open_no_connection(site: Site, secret: bool, kind: str) -> None:
    """The others ask it and hear that it serves, so a standby promoted by mistake never does."""
    site.ready(secret=secret)
    _block(site, ["pg1"], site.others("pg1"), kind)
    site.node("pg2").promote()
    site.wait("pg2", "lost_conflict")
    let_pass(A_WHILE)
    assert site.services("pg2") == []
    assert site.reasons("pg1") == UNDISTURBED


def test_4_nobody_can_open_a_connection_to_the_primary_which_tells_them(site: Site) -> None:
    """Signed messages say who serves as well as answers do."""
    site.ready(secret=True)
    _block(site, site.others("pg1"), ["pg1"], "agents")
    site.node("pg2").promote()
    site.wait("pg2", "lost_conflict")
    let_pass(A_WHILE)
    assert site.services("pg2") == []
    assert site.reasons("pg1") == UNDISTURBED


def test_4_nobody_can_open_a_connection_to_the_primary_which_may_not_tell_them(site: Site) -> None:
    """Without a secret they hear nothing of it; it asks, and yields within one round of their first 200."""
    site.ready()
    _block(site, site.others("pg1"), ["pg1"], "agents")
    site.node("pg2").promote()
    site.wait("pg2", "primary")
    site.overlap_until = site.services("pg2")[0].began + ROUND
    site.wait("pg1", "stale_timeline", timeout=ROUND + MOMENT)
    let_pass(A_WHILE)
    assert site.reasons("pg2", boottime() - 1.0) == UNDISTURBED


def _block(site: Site, sources: list[str], targets: list[str], kind: str) -> None:
    """No connection from sources to targets: to the agents' port, also those that are open; or no new one."""
    if kind == "agents":
        site.network.cut(sources, targets, port=PORT, one_way=True)
    else:
        site.network.cut(sources, targets, syn_only=True)


@pytest.mark.parametrize("cut_off", ["pg1", "pg2"])
def test_5_an_agent_cut_off_while_its_postgresql_is_not(site: Site, cut_off: str) -> None:
    """The others ask that PostgreSQL itself: it is a primary, and so a rival."""
    site.ready(dsn=True)
    site.network.cut([cut_off], port=PORT)
    let_pass(ROUND + 2)
    site.node("pg2").promote()
    site.wait("pg2", "isolated_at_start" if cut_off == "pg2" else "lost_conflict")
    let_pass(A_WHILE)
    assert site.services("pg2") == []
    assert site.reasons("pg1") == UNDISTURBED
    asked = {peer["name"]: peer["asked_directly"] for peer in site.agents["pg3"].status()["peers"]}
    assert asked[cut_off]["role"] == "primary"


def test_an_isolated_agent_that_forgets_everything_waits_for_a_majority(site: Site) -> None:
    site.ready()
    site.network.cut(["pg1"])
    site.node("pg2").promote()
    agent = site.agents["pg1"]
    agent.kill()
    for file in agent.state_dir.iterdir():
        file.unlink()
    restarted_at = boottime()
    agent.start()
    site.wait("pg2", "primary")
    site.wait("pg1", "isolated_at_start")
    let_pass(DRAIN)
    site.network.heal()
    site.wait("pg1", "stale_timeline")
    let_pass(1.0)
    assert "primary" not in site.reasons("pg1", restarted_at)
    assert site.reasons("pg2", boottime() - 1.0) == UNDISTURBED
