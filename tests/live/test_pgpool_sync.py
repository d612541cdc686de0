"""`healthagent pgpool-sync` between real agents, a real pgpool and a real PostgreSQL cluster.

Rows whose verdicts a real cluster cannot be made to give at will use the stand-in agent.
"""

import re
import time
from collections.abc import Callable

import pytest

from healthagent.demo.postgres import until
from tests.bed.bridge import SETUP, Bed, get
from tests.bed.command import ran

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]


def seconds_until(condition: Callable[[], bool], timeout: float, what: str) -> float:
    began = time.monotonic()
    until(condition, timeout, what)
    return time.monotonic() - began


def test_while_all_is_well_nothing_is_asked_of_pgpool(bed: Bed) -> None:
    bed.start_agents()
    bed.start_pgpool()
    bed.start_bridge()
    until(bed.ready, SETUP, "ready")
    for _ in range(6):
        assert bed.writes()
        assert bed.reads()
        time.sleep(0.5)
    assert bed.actions() == {}
    assert bed.metric("healthagent_pgpool_role_mismatch") == 0
    assert bed.metric("pgpool2_up") == 1
    assert bed.metrics().count("\npgpool2_pool_nodes_status{") == 3
    assert "against us" not in bed.tail()


def test_a_split_brain_without_a_winner_is_fenced_and_reads_go_on(bed: Bed) -> None:
    pg1, pg2, pg3 = bed.nodes
    bed.start_agents()
    bed.start_pgpool()
    bed.start_bridge()
    until(bed.ready, SETUP, "ready")
    pg3.configure(primary_conninfo="")  # it follows nobody, so it cannot say who is right
    until(lambda: "streaming" not in get(f"{bed.agents['pg3']}/patroni")[1], SETUP, "its agent knows that")
    time.sleep(2)  # and the others have heard it
    pg2.promote()
    took = seconds_until(lambda: bed.backends("down") == 2, 30.0, "both are detached")
    assert took < 5.0, bed.tail()
    before = bed.rows(pg1) + bed.rows(pg2)
    until(bed.reads, SETUP, "reads go on")
    for _ in range(3):
        assert not bed.writes()
        assert bed.reads()
    assert bed.rows(pg1) + bed.rows(pg2) == before, "no write leaked"
    assert not bed.ready()
    pg1.stop()  # a person decides
    until(lambda: get(f"{bed.agents['pg2']}/primary")[0] == 200, SETUP, "the agents permit writes on pg2")
    assert seconds_until(bed.writes, 30.0, "writes on pg2") < 5.0, bed.tail()
    until(bed.ready, SETUP, "ready")


def test_a_quick_switchover_that_pgpool_did_not_notice(bed: Bed) -> None:
    pg1, pg2, pg3 = bed.nodes
    bed.start_agents()
    bed.start_pgpool(health_check_period=600, sr_check_period=600)
    bed.start_bridge()
    until(bed.ready, SETUP, "ready")
    pg1.stop()
    pg3.follow(pg2)
    pg2.promote()
    pg1.become_standby_of(pg2)
    pg1.start()
    until(lambda: get(f"{bed.agents['pg2']}/primary")[0] == 200, SETUP, "the agents permit writes on pg2")
    assert seconds_until(bed.writes, 30.0, "writes on pg2") < 5.0, bed.tail()
    assert bed.rows(pg2) == 1
    until(bed.ready, SETUP, "ready")
    until(lambda: bed.backends("down") == 0, SETUP, "all replicas are attached again")
    assert bed.actions()["promote"] == 1
    assert "detach" not in bed.actions()


def test_the_primary_dies_and_another_is_promoted_outside(bed: Bed) -> None:
    pg1, pg2, pg3 = bed.nodes
    bed.start_agents()
    bed.start_pgpool(health_check_period=1, health_check_max_retries=1)
    bed.start_bridge()
    until(bed.ready, SETUP, "ready")
    pg1.kill9()
    time.sleep(3)  # pgpool notices and finds no primary
    pg3.follow(pg2)
    pg2.promote()
    until(lambda: get(f"{bed.agents['pg2']}/primary")[0] == 200, SETUP, "the agents permit writes on pg2")
    assert seconds_until(bed.writes, 30.0, "writes on pg2") < 5.0, bed.tail()
    assert bed.rows(pg2) == 1


def test_a_healthy_primary_that_pgpool_lost_is_attached_again_and_nobody_is_promoted(bed: Bed) -> None:
    pg1, pg2, pg3 = bed.nodes
    pg1.psql("CREATE ROLE pgpool LOGIN")
    bed.start_agents()
    bed.start_pgpool_that_promotes(
        health_check_user="pgpool", health_check_period=1, health_check_max_retries=0
    )
    bed.start_bridge()
    until(bed.ready, SETUP, "ready")
    hba = pg1.data / "pg_hba.conf"
    allowed = hba.read_text()
    hba.write_text("host all pgpool all reject\n" + allowed)
    pg1.psql("SELECT pg_reload_conf()")
    until(lambda: "VETO: " in bed.pgpool.log_file.read_text(), SETUP, "the failover script vetoes")
    assert "says that its PostgreSQL is a primary (primary)" in bed.pgpool.log_file.read_text()
    hba.write_text(allowed)
    pg1.psql("SELECT pg_reload_conf()")
    until(lambda: bed.actions() != {} and bed.ready(), SETUP, "the primary is attached again")
    assert seconds_until(bed.writes, 30.0, "writes on pg1") < 5.0, bed.tail()
    assert [node.psql("SELECT pg_is_in_recovery()") for node in (pg2, pg3)] == [[("t",)], [("t",)]]
    assert set(bed.actions()) == {"attach"}
    assert "against us" not in bed.tail(), "the shipped failover script is no conflict"


def test_pgpool_promotes_with_the_shipped_script_when_the_primary_is_dead(bed: Bed) -> None:
    pg1, pg2, _ = bed.nodes
    bed.start_agents()
    bed.start_pgpool_that_promotes(health_check_period=1, health_check_max_retries=1)
    bed.start_bridge()
    until(bed.ready, SETUP, "ready")
    pg1.kill9()
    until(lambda: pg2.psql("SELECT pg_is_in_recovery()") == [("f",)], SETUP, "pg2 is promoted")
    until(bed.writes, SETUP, "writes on pg2")
    assert bed.rows(pg2) == 1


def test_a_split_brain_is_never_answered_with_a_third_primary(bed: Bed) -> None:
    _, pg2, pg3 = bed.nodes
    bed.start_stand_ins()
    bed.start_pgpool_that_promotes()
    bed.start_bridge()
    pg2.promote()
    for name in ("pg1", "pg2"):
        bed.stand_ins[name].refuse("diverged")
    until(lambda: bed.actions() == {"detach": 2}, SETUP, "both are detached")
    until(lambda: "VETO: " in bed.pgpool.log_file.read_text(), SETUP, "the failover script vetoes")
    assert "says that its PostgreSQL is a primary (diverged)" in bed.pgpool.log_file.read_text()
    time.sleep(2)
    assert pg3.psql("SELECT pg_is_in_recovery()") == [("t",)]


def test_a_primary_whose_writes_an_operator_took_away_gets_none_through_pgpool(pair: Bed) -> None:
    pair.start_agents()
    pair.start_pgpool()
    pair.start_bridge()
    until(pair.ready, SETUP, "ready")
    at = f"--url={pair.agents[pair.nodes[0].name]}"
    took = ran("override", "primary", "off", "--for=10m", "--why=a test", at)
    assert took.returncode == 0, took.stderr
    until(lambda: pair.backends("down") == 1, SETUP, "it is detached")
    assert "is refused: forced_off" in pair.tail()
    assert not pair.writes()
    until(pair.reads, SETUP, "reads go on")
    assert ran("override", "end", at).returncode == 0
    until(pair.writes, SETUP, "writes go on")
    until(pair.ready, SETUP, "ready")


def test_a_restart_of_pgpool_in_a_split_brain_leaks_no_write(bed: Bed) -> None:
    pg1, pg2, _ = bed.nodes
    bed.start_stand_ins()
    bed.start_pgpool()
    pg2.promote()
    for name in ("pg1", "pg2"):
        bed.stand_ins[name].refuse("diverged")
    bed.pgpool.stop()
    bed.pgpool.status_file.unlink(missing_ok=True)
    wrote = ran("pgpool-sync", f"--write-status={bed.pgpool.status_file}", *bed.options())
    assert wrote.returncode == 0, wrote.stderr
    assert bed.pgpool.status_file.read_text() == "down\ndown\nup\n"
    bed.pgpool.start()
    for _ in range(10):
        assert not bed.writes()
    assert bed.reads()
    assert (bed.rows(pg1), bed.rows(pg2)) == (0, 0)


def test_a_silent_agent_changes_nothing(bed: Bed) -> None:
    bed.start_agents()
    bed.start_pgpool()
    bed.start_bridge()
    until(bed.ready, SETUP, "ready")
    bed.running_agents["pg1"].close()
    until(lambda: not bed.ready(), SETUP, "the bridge misses the primary's agent")
    time.sleep(3)
    assert bed.writes()
    assert bed.actions() == {}


def test_pcp_that_refuses_is_waited_for(pair: Bed) -> None:
    pair.start_stand_ins()
    pair.start_pgpool()
    right = pair.pgpool.password_file.read_text()
    pair.pgpool.password_file.write_text("wrong")
    pair.pgpool.stop()
    pair.start_bridge("--interval=200ms")
    until(lambda: pair.metric("healthagent_pgpool_pcp_errors_total") > 2, SETUP, "it tries again")
    assert not pair.ready()
    assert pair.metric("healthagent_pgpool_up") == 0
    assert pair.tail().count("does not answer") == 1, "logged once, not at each poll"
    pair.pgpool.start()  # which writes the right password to the file; the bridge has read the wrong one
    assert pair.pgpool.password_file.read_text() == right
    until(lambda: "FATAL" in pair.pgpool.log_file.read_text(), SETUP, "pgpool refuses the wrong password")
    assert not pair.ready()


def test_a_pgpool_that_comes_later_is_followed(pair: Bed) -> None:
    pair.start_stand_ins()
    pair.start_pgpool()
    pair.pgpool.stop()
    pair.start_bridge("--interval=200ms")
    assert not pair.ready()
    pair.pgpool.start()
    until(pair.ready, SETUP, "ready")


def test_a_flapping_agent_does_not_make_pgpool_flap(pair: Bed) -> None:
    pair.start_stand_ins()
    pair.start_pgpool()
    pair.start_bridge("--interval=100ms", "--hold=500ms")
    until(pair.ready, SETUP, "ready")
    began = time.monotonic()
    while time.monotonic() - began < 15:
        pair.stand_ins["pg1"].refuse("diverged")
        time.sleep(0.5)
        pair.stand_ins["pg1"].permit()
        time.sleep(1.5)
    actions = pair.actions()
    assert actions.get("attach", 0) + actions.get("promote", 0) <= 3, pair.tail()
    assert actions["detach"] >= 2
    assert "3 times in the last minute" in pair.tail()


def test_a_backend_that_pgpool_may_not_detach_is_reported_and_not_looped_on(pair: Bed) -> None:
    pair.start_stand_ins()
    pair.start_pgpool(backend_flag0="DISALLOW_TO_FAILOVER")
    pair.start_bridge("--interval=200ms")
    until(
        lambda: "backend_flag0: DISALLOW_TO_FAILOVER refuses every detach" in pair.tail(), SETUP, "a warning"
    )
    pair.stand_ins["pg1"].refuse("diverged")
    until(lambda: pair.metric("healthagent_pgpool_alarms") == 1, SETUP, "an alarm")
    time.sleep(2)
    assert pair.metric('healthagent_pgpool_actions_refused_total{action="detach"}') == 1
    assert pair.actions() == {}


def test_settings_that_fight_the_bridge_are_named_at_the_start(pair: Bed) -> None:
    pair.start_stand_ins()
    pair.start_pgpool(
        auto_failback="on",
        detach_false_primary="on",
        failover_command="/bin/true %d",
        follow_primary_command="/bin/true %d",
        health_check_period=0,
        search_primary_node_timeout=300,
    )
    pair.start_bridge()
    until(lambda: "set against us: search" in pair.tail(), SETUP, "the last of the warnings")
    assert set(re.findall(r"set against us: (\w+):", pair.tail())) == {
        "auto_failback",
        "detach_false_primary",
        "failover_command",
        "follow_primary_command",
        "health_check_period",
        "search_primary_node_timeout",
    }


def test_bad_input_is_refused_with_every_problem(pair: Bed) -> None:
    pair.start_stand_ins()
    pair.start_pgpool()
    pair.stand_ins["pg1"].cluster = "other"
    pair.stand_ins["pg2"].name = "pg7"
    options = [option for option in pair.options() if not option.startswith("--backend")]
    unknown = "pgpool_sync.backends.nope: no agent has this name (there are pg1, pg2)"
    for how in ((), ("--once",), ("--backend=nope=1",)):
        refused = ran("pgpool-sync", *options, "--backend=pg1=0", "--backend=pg2=5", "--cluster=main", *how)
        assert refused.returncode == 2
        assert refused.stderr.splitlines() == [
            *([unknown] if "--backend=nope=1" in how else ()),
            "pgpool_sync.backends.pg2: pgpool has no backend 5, only 0 to 1",
            "pgpool_sync.agents.pg1: it belongs to the cluster 'other', not 'main'",
            "pgpool_sync.agents.pg2: it calls itself 'pg7', not 'pg2'",
        ]


def test_once_and_dry_run_say_what_would_be_done(pair: Bed) -> None:
    pair.start_stand_ins()
    pair.start_pgpool()
    fine = ran("pgpool-sync", "--once", *pair.options())
    assert fine.returncode == 0, fine.stderr
    pair.stand_ins["pg1"].refuse("maintenance")
    dry = ran("pgpool-sync", "--once", "--dry-run", *pair.options())
    assert (dry.returncode, "dry run, would detach" in dry.stderr) == (1, True), dry.stderr
    assert pair.writes()
    acted = ran("pgpool-sync", "--once", *pair.options())
    assert (acted.returncode, "told pgpool to detach" in acted.stderr) == (0, True), acted.stderr


def test_pgpool_before_ports_that_the_agents_decide_about(pair: Bed) -> None:
    """The other way: the shipped file before a write port and a read port, here the servers themselves."""
    pg1, pg2 = pair.nodes
    pair.start_pgpool(shipped="pgpool-haproxy.conf")
    for _ in range(3):
        assert pair.writes()
    assert pair.rows(pg1) == 3
    pg2.wait_replayed(pg1)
    seen = pair.pgpool.sql("SELECT DISTINCT inet_server_port() FROM log").stdout
    assert seen == f"{pg2.port}\n", "reads go to the read port"
    pg2.promote()  # nothing that happens behind the ports is pgpool's business
    time.sleep(2)
    assert pair.writes()
    assert pair.rows(pg1) == 4
