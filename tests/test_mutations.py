"""Each rule, broken, is noticed: by a story that then goes otherwise, a row of a table, or a random schedule.

A rule that could be taken out without anybody noticing would not be worth its place, or is not
tested. Who changes a rule changes its line here: the text must be found, and once only.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mutation import broken
from tests.simulator.plan import plan_of
from tests.simulator.play import play
from tests.test_stories import retell

STORIES = Path(__file__).parent / "stories"
SCHEDULES = range(7_000_000, 7_001_500)  # enough for what random schedules do find
Noticed = Callable[[], bool]


def story(name: str) -> Noticed:
    """Whether the story goes otherwise."""
    text = (STORIES / f"{name}.txt").read_text()

    def noticed() -> bool:
        try:
            return retell(text) != text
        except AssertionError:
            return True

    return noticed


def row(test: str, **chosen: str) -> Noticed:
    """Whether a test fails; of a table, in the row of that id."""
    module_name, function_name = test.split("::")
    wanted = chosen.get("id")
    # now, while nothing is broken: what it imported then would stay so
    module = importlib.import_module(f"tests.{module_name}")

    def noticed() -> bool:
        function: Any = getattr(module, function_name)
        marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
        rows = [values.values for mark in marks for values in mark.args[1] if values.id == wanted]
        assert len(rows) == (0 if wanted is None else 1), f"{test}: {len(rows)} rows {wanted!r}"
        try:
            function(*(rows[0] if rows else ()))
        except AssertionError:
            return True
        return False

    return noticed


def schedules() -> bool:
    """Whether some random schedule breaks an invariant."""
    return any(play(plan_of(seed)) is not None for seed in SCHEDULES)


PRIMARY, MEMORY, CONFLICT = "core.primary", "core.memory", "core.conflict"
MEMBERS, TERM = "core.members", "core.term"

MUTATIONS = [
    # decision by decision: the rules of /primary
    pytest.param(
        PRIMARY,
        "if cluster is None or timeline is None or not stale(timeline, cluster, memory):",
        "if True:",
        [story("only_the_witness_remembers"), story("partition_heals"), schedules],
        id="5 the high-water mark",
    ),
    pytest.param(
        PRIMARY,
        "if snapshot.system_identifier != own:",
        "if False:",
        [story("another_system_identifier")],
        id="6 another system identifier",
    ),
    pytest.param(
        PRIMARY,
        "        or _refused_by_gate(view, policy)\n",
        "",
        [story("old_primary_returns"), schedules],
        id="7 to 9 the start gate",
    ),
    pytest.param(
        PRIMARY,
        "if last is None or last.begun_at < term.since:",
        "if last is None:",
        [story("postgres_restarts")],
        id="7 the round must begin after this node became primary",
    ),
    pytest.param(
        PRIMARY,
        "if since_round > policy.round_max_age:",
        "if False:",
        [row("test_primary::test_refusal", id="the last round ended 2.501 s ago: this agent was frozen")],
        id="7 the last round must not be old",
    ),
    pytest.param(
        PRIMARY,
        "    if not view.memory.serving:\n        for peer in view.peers:",
        "    if False:\n        for peer in view.peers:",
        [story("started_at_once"), schedules],
        id="7 another primary that has just started must have shown itself",
    ),
    pytest.param(
        PRIMARY,
        "if members >= 3 and present < majority(members):",
        "if False:",
        [story("isolated_restart_emptied")],
        id="8 isolated at start",
    ),
    pytest.param(
        PRIMARY,
        "if members == 2 and present < 2 and waited < policy.start_alone_after:",
        "if False:",
        [story("start_alone")],
        id="9 alone at start",
    ),
    pytest.param(
        PRIMARY,
        "    if winner is not None:\n        return refusal(Reason.LOST_CONFLICT",
        "    if False:\n        return refusal(Reason.LOST_CONFLICT",
        [story("promoted_by_mistake")],
        id="10 the loser refuses",
    ),
    pytest.param(
        PRIMARY,
        'return refusal(Reason.DIVERGED, f"nobody',
        'return None and refusal(Reason.DIVERGED, f"nobody',
        [story("two_nodes_diverged"), story("demote_all")],
        id="10 nobody won: all refuse",
    ),
    pytest.param(
        PRIMARY,
        "if statement is not None and statement.serving:",
        "if False:",
        [story("partition_heals")],
        id="11 another serves",
    ),
    pytest.param(
        PRIMARY,
        "if stopped_for < policy.drain:",
        "if False:",
        [story("failover_at_once"), schedules],
        id="11 the drain",
    ),
    pytest.param(
        PRIMARY,
        "if view.memory.serving and not _by_its_own_word(peer):",
        "if False:",
        [story("machine_reborn")],
        id="11 who serves is not taken out by an agent reborn from long silence",
    ),
    pytest.param(
        PRIMARY,
        "if is_agent(statement) and statement.yields_to == own and statement.asked_at >= since:",
        "if True:",
        [story("two_nodes_diverged"), story("who_wins_is_seen_differently"), schedules],
        id="11 a live rival must yield",
    ),
    pytest.param(
        PRIMARY,
        "statement.yields_to == own and statement.asked_at >= since",
        "statement.yields_to == own and statement.received_at >= since",
        [
            row(
                "test_primary::test_refusal",
                id="the rival's word arrived after this node stopped yielding, but was asked for before",
            )
        ],
        id="11 the word of a rival counts from the question",
    ),
    pytest.param(
        PRIMARY,
        "since = max(view.memory.yielded_until, term.since)",
        "since = term.since",
        [
            row(
                "test_primary::test_refusal",
                id="the rival's word was asked for while this node still yielded",
            )
        ],
        id="11 the word of a rival is younger than our own yielding",
    ),
    pytest.param(
        PRIMARY,
        "since = max(view.memory.yielded_until, term.since)",
        "since = view.memory.yielded_until",
        [row("test_primary::test_refusal", id="the rival's word was asked for before this term")],
        id="11 the word of a rival is younger than our term",
    ),
    pytest.param(
        PRIMARY,
        " or _refused_by_own_word(view)",
        "",
        [story("comes_back_while_yielded_to")],
        id="7 every peer is asked after this node stopped yielding",
    ),
    pytest.param(
        PRIMARY,
        "if silent_for < policy.silence:",
        "if False:",
        [story("failover_machine_dead"), schedules],
        id="12 a serving peer that fell silent",
    ),
    pytest.param(
        PRIMARY,
        "if silent_for < policy.silence:",
        "if silent_for < policy.drain:",
        [story("isolation_demote")],
        id="12 with isolation: demote the silence is longer",
    ),
    pytest.param(
        PRIMARY,
        "if present >= majority(members) or alone_for < policy.isolation_after:",
        "if True:",
        [story("isolation_demote")],
        id="13 isolation: demote",
    ),
    pytest.param(
        PRIMARY,
        "    if not policy.demote_isolated:\n        return None",
        "    if False:\n        return None",
        [story("isolation_keep"), schedules],
        id="13 isolation: keep",
    ),
    pytest.param(
        PRIMARY,
        "if saved >= snapshot.timeline:",
        "if True:",
        [story("full_disk")],
        id="14 the state file before the first 200",
    ),
    # an operator's word
    pytest.param(
        PRIMARY,
        "        or _refused_by_postgres(view, policy)\n        or _refused_by_identity(view, policy)\n",
        "        or _refused_by_identity(view, policy)\n",
        [row("test_forced::test_what_no_operator_sets_aside", id="4 read-only")],
        id="forced on: PostgreSQL itself must take writes",
    ),
    pytest.param(
        PRIMARY,
        "        or _refused_by_identity(view, policy)\n        or _refused_by_round(view, policy)\n",
        "        or _refused_by_round(view, policy)\n",
        [row("test_forced::test_what_no_operator_sets_aside", id="6 another cluster")],
        id="forced on: of the cluster that is meant",
    ),
    pytest.param(
        PRIMARY,
        "        or _refused_by_service(view, policy)\n",
        "",
        [row("test_forced::test_what_no_operator_sets_aside", id="11 another serves")],
        id="forced on: never beside another that serves",
    ),
    pytest.param(
        PRIMARY,
        "        or too_early(override, view, policy)\n",
        "",
        [story("forced_on"), story("forced_on_beside_another")],
        id="forced on: first nobody may serve by our word",
    ),
    pytest.param(
        "core.forced",
        "return override if override is not None and view.now < override.until else None",
        "return override",
        [story("forced_on"), row("test_forced::test_over_to_the_moment_whoever_remembers")],
        id="an operator's word ends by itself",
    ),
    pytest.param(
        "core.forced",
        "return None if serving_elsewhere(view, policy) is not None else override",
        "return override",
        [row("test_forced::test_when_it_is_over", id="another is heard serving")],
        id="forced on: over when another serves",
    ),
    pytest.param(
        TERM,
        "            and not served.forced  # an operator's word is not the gate\n",
        "",
        [row("test_forced::test_service_by_force_is_not_the_start_gate")],
        id="service by force opens no gate",
    ),
    pytest.param(
        "statefile",
        "override=None if memory.override is None or memory.override.on else memory.override,",
        "override=memory.override,",
        [row("test_statefile::test_a_restart_forgets_a_word_that_permits")],
        id="no restart brings a permission by force back",
    ),
    # newly primary
    pytest.param(
        TERM,
        "return last is not None and last.begun_at >= instant",
        "return last is not None",
        [row("test_memory::test_a_round_is_complete_when_every_call_began_in_this_term")],
        id="a round counts from when it began",
    ),
    pytest.param(
        TERM,
        "        and not term.broken\n",
        "",
        [story("postgres_restarts")],
        id="lost evidence begins another term",
    ),
    pytest.param(
        TERM,
        "newly=not undisturbed,",
        "newly=True,",
        [story("isolated_restart_kept")],
        id="who served lately is not new",
    ),
    pytest.param(
        TERM,
        "and view.now - served.at <= policy.takeover_after",
        "",
        [row("test_memory::test_a_new_term_begins", id="back after lost evidence, served a minute ago")],
        id="who served long ago is new",
    ),
    # the signals
    pytest.param(
        CONFLICT,
        "if votes.count(candidate.name) > len(voters) / 2:",
        "if votes.count(candidate.name) >= len(voters) / 2:",
        [row("test_conflict::test_majority_of_followers", id="one of two is no majority")],
        id="F is a majority",
    ),
    pytest.param(
        CONFLICT,
        "return now if now is not None else before if before in candidates else None",
        "return now",
        [story("promoted_by_mistake")],
        id="a signal that becomes unknown keeps speaking",
    ),
    pytest.param(
        CONFLICT,
        "if conflict.winner == own or statement is None or statement.reason not in _NO_PRIMARY:",
        "if statement is None or statement.reason not in _NO_PRIMARY:",
        [
            row(
                "test_conflict::test_how_long_an_absent_rival_counts",
                id="won, and the rival's PostgreSQL is down",
            )
        ],
        id="what was decided stays decided while the loser restarts",
    ),
    pytest.param(
        CONFLICT,
        "return view.now - rival.primary_at < policy.takeover_after  # the winner may come back",
        "return False",
        [story("restart_of_the_rightful")],
        id="a loser waits for takeover_after",
    ),
    pytest.param(
        CONFLICT,
        "or statement is None or statement.reason not in _NO_PRIMARY:",
        "or (statement is not None and statement.reason not in _NO_PRIMARY):",
        [story("two_nodes_diverged_postgres_restarts")],
        id="silence ends nothing that nobody has won",
    ),
    pytest.param(
        CONFLICT,
        "    # down, says its agent: believed once it has lasted longer than a restart\n"
        "    return view.now - rival.primary_at < policy.drain",
        "    return False",
        [story("two_nodes_diverged_postgres_restarts")],
        id="a restart of PostgreSQL ends nothing that nobody has won",
    ),
    pytest.param(
        CONFLICT,
        "and (candidate.name in known or _seen_in_this_term(peer, view, policy))",
        "",
        [story("failover_machine_dead_at_once")],
        id="a conflict begins with evidence of this term",
    ),
    # yielding
    pytest.param(
        MEMORY,
        "return replace(memory, yields_to=_first_serving(view))",
        "return memory",
        [row("test_memory::test_whom_a_primary_yields_to", id="new, and it has heard one serve")],
        id="a new primary yields to the serving one from the first moment",
    ),
    pytest.param(
        MEMORY,
        "if round_complete(view) and _wins(conflict, own):",
        "if _wins(conflict, own):",
        [
            row(
                "test_memory::test_yielding_is_latched_until_a_completed_decision",
                id="it wins, but not every peer was asked",
            )
        ],
        id="yielding lasts until every peer was asked",
    ),
    pytest.param(
        MEMORY,
        "return seen_at < view.now and view.now - seen_at >= policy.takeover_after - policy.drain",
        "return False",
        [
            row(
                "test_memory::test_a_loser_stops_yielding_a_drain_before_it_takes_over",
                id="7.0 s: a drain before takeover_after, should it hear us still",
            )
        ],
        id="who takes over stops yielding a drain before",
    ),
    pytest.param(
        MEMORY,
        "return term is not None and view.memory.yielded_until >= term.since and _wins(conflict, own)",
        "return _wins(conflict, own)",
        [row("test_memory::test_who_has_once_decided_to_win_does_not_yield_again_by_itself")],
        id="a decision settles only the term in which it was taken",
    ),
    # memory and members
    pytest.param(
        MEMORY,
        "        if statement.high_water:\n",
        "        if False:\n",
        [story("only_the_witness_remembers"), schedules],
        id="the mark is gossip",
    ),
    pytest.param(
        MEMBERS,
        "return statement if now - statement.asked_at <= policy.peer_max_age else None",
        "return statement if now - statement.received_at <= policy.peer_max_age else None",
        [row("test_members::test_heard", id="answered just now to an old question")],
        id="what permits counts from the question",
    ),
    pytest.param(
        MEMBERS,
        "    if statement.serving:\n        return statement.received_at\n",
        "    if statement.serving:\n        return statement.asked_at\n",
        [row("test_members::test_until_when_a_peer_may_have_served", id="it serves: until the answer came")],
        id="what forbids counts from the answer",
    ),
    pytest.param(
        PRIMARY,
        "stopped is not None and stopped > statement.started_at",
        "stopped is not None and stopped >= statement.started_at",
        [
            row(
                "test_primary::test_permission",
                id="it serves when an agent starts again that recalls that it served until about then",
            )
        ],
        id="an agent that stopped when it started speaks of its predecessor",
    ),
    pytest.param(
        MEMBERS,
        "known = max(known, statement.started_at)",
        "pass",
        [story("full_disk_and_a_killed_agent")],
        id="the predecessor may have served until its successor started",
    ),
    pytest.param(
        MEMBERS,
        "if snapshot and statement.received_at - snapshot.asked_at <= policy.snapshot_max_age:",
        "if snapshot:",
        [row("test_members::test_snapshot_of_a_peer", id="a snapshot of 3.001 s: the server may be frozen")],
        id="a peer's snapshot must be young",
    ),
    # what others are told, and what survives
    pytest.param(
        "board",
        "if not serving and member_count(view, self.policy) > 1 and last_round(view) is None:",
        "if False:",
        [row("test_board::test_a_primary_says_nothing_of_its_postgres_before_it_knows_to_whom_it_yields")],
        id="a primary keeps silent until it knows to whom it yields",
    ),
    pytest.param(
        "board",
        "if peer is None or now - begun_at > self.policy.peer_timeout + FROZEN:",
        "if peer is None:",
        [
            row(
                "test_board::test_a_call_that_spanned_a_freeze_completes_no_round",
                id="longer: the agent was frozen meanwhile",
            )
        ],
        id="a call that spanned a freeze completes no round",
    ),
    pytest.param(
        "board",
        "return min(memory.started_at, served.at + SAVE_SERVED_EVERY)",
        "return served.at",
        [
            row(
                "test_board::test_until_when_a_predecessor_may_have_served",
                id="its predecessor may have served until the next note",
            )
        ],
        id="the state file's last service is coarse",
    ),
    pytest.param(
        "statefile",
        "saved_high_water=mark,",
        "",
        [row("test_statefile::test_within_one_boot_everything_is_recalled")],
        id="what was loaded is durable",
    ),
    pytest.param(
        "statefile",
        "served=stored.served if same_boot else None,",
        "served=stored.served,",
        [row("test_statefile::test_after_a_reboot_the_instants_mean_nothing")],
        id="instants of another boot mean nothing",
    ),
    pytest.param(
        "wire",
        "snapshot=None if snapshot is None else _snapshot(snapshot, asked_at),",
        "snapshot=None if snapshot is None else _snapshot(snapshot, received_at),",
        [row("test_wire::test_what_permits_counts_from_the_question_and_what_forbids_from_the_answer")],
        id="a peer's snapshot is as old as it can be",
    ),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("module", "rule", "instead", "witnesses"), MUTATIONS)
def test_a_broken_rule_is_noticed(module: str, rule: str, instead: str, witnesses: list[Noticed]) -> None:
    with broken(f"healthagent.{module}", rule, instead):
        blind = [number for number, noticed in enumerate(witnesses) if not noticed()]
    assert not blind, f"these witnesses noticed nothing: {blind}"


def test_nothing_stays_broken() -> None:
    assert not story("partition_heals")()
