"""The one home of evidence: what it takes in, what it refuses, what it tells the others."""

from dataclasses import replace
from typing import Any

import pytest

from healthagent.board import FROZEN, SAVE_SERVED_EVERY, SETTLED, Board, Identity
from healthagent.core.model import Failure, LagLimit, Reason, Role, Snapshot
from healthagent.core.peer import Alarm, Call, Candidate, Peer, Served, Source, Statement
from healthagent.core.replica import Ask
from healthagent.core.view import Conflict, Maintenance, Memory, Policy, Rival, Signals
from healthagent.wire import decode, encode, statement_of
from tests.builders import (
    NOW,
    OTHER_SYSTEM,
    SYSTEM,
    addresses,
    failure,
    follower,
    memory,
    newly,
    policy,
    served,
    snap,
    statement,
    term,
)

HERE, THERE = Candidate("pg1", 1), Candidate("pg2", 2)
DEFAULT = policy()
MINE = Identity("pg1", "main", "start of pg1", "10.0.0.1:5432", {"zone": "az1", "ssd": True})


def board(
    *entries: str,
    remembered: Memory | None = None,
    chosen: Policy = DEFAULT,
    snapshot: Snapshot | None = None,
) -> Board:
    """pg1's board; a serving primary with pg2 and pg3 as followers, unless said otherwise."""
    names = entries or ("pg2", "pg3")
    made = Board(MINE, chosen, memory() if remembered is None else remembered, [Peer(name) for name in names])
    made.addresses = addresses("pg1", *names)
    made.observe(snap() if snapshot is None else snapshot, NOW)
    if not entries:
        for name in names:
            made.hear(name, statement(name, follower("pg1", age=0.4)), NOW)
            made.end_call(name, NOW - 0.3, NOW - 0.2)
    return made


def test_an_undisturbed_primary() -> None:
    made = board()
    assert made.primary(NOW).ok
    assert made.memory.served == Served(SYSTEM, 1, NOW)
    assert made.replica(NOW).reason is Reason.NOT_REPLICA
    assert made.running(NOW).ok
    assert made.role(NOW) is Role.PRIMARY
    assert made.members(NOW) == (3, 3)


# Evidence of this node.


def test_an_older_snapshot_never_replaces_a_younger_one() -> None:
    made = board(snapshot=snap(age=0.1))
    made.observe(snap(timeline=9, age=0.2), NOW)
    assert made.local.snapshot == snap(age=0.1)
    made.observe(snap(timeline=2, age=0.1), NOW)
    assert made.local.snapshot == snap(timeline=2, age=0.1)


def test_a_failure_lasts_until_the_next_snapshot() -> None:
    made = board()
    made.observe_failure(failure(), NOW)
    assert made.primary(NOW).reason is Reason.POSTGRES_DOWN
    assert made.role(NOW) is None
    made.observe(snap(age=0.0), NOW)
    made.end_call("pg2", NOW, NOW + 0.1)
    made.end_call("pg3", NOW, NOW + 0.1)
    assert made.primary(NOW + 0.1).ok  # back within takeover_after, and every peer asked anew


@pytest.mark.parametrize(
    ("attempts", "refused"),
    [
        pytest.param([failure()], False, id="one refused"),
        pytest.param([failure(), failure()], True, id="two refused in a row"),
        pytest.param([failure(), failure(), None], False, id="the third one worked"),
        pytest.param([failure(), None, failure()], False, id="refused, worked, refused"),
        pytest.param([failure(Reason.NO_CONNECTION_SLOT)] * 3, False, id="too many clients, three times"),
        pytest.param([failure(Reason.AUTH_FAILED)] * 3, False, id="a changed password, three times"),
        pytest.param(
            [failure(), failure(Reason.NO_CONNECTION_SLOT), failure()], False, id="an answer in between"
        ),
    ],
)
def test_new_connections(attempts: list[Failure | None], refused: bool) -> None:
    made = board()
    for attempt in attempts:
        made.observe_new_connection(attempt, NOW)
    assert (made.primary(NOW).reason is Reason.NO_NEW_CONNECTIONS) == refused
    assert made.local.new_connection_failure == attempts[-1]


# Evidence of peers.


@pytest.mark.parametrize(
    ("entry", "said", "alarm", "why"),
    [
        pytest.param("pg2", statement("pg2"), None, "", id="the peer that was meant"),
        pytest.param(
            "pg2",
            statement("pg2", incarnation="start of pg1"),
            Alarm.SELF,
            "this entry leads back to this agent",
            id="this agent itself",
        ),
        pytest.param(
            "pg2",
            statement("pg2", cluster="other"),
            Alarm.FOREIGN_CLUSTER,
            "it belongs to cluster 'other'",
            id="another cluster",
        ),
        pytest.param(
            "pg2",
            statement("pg9"),
            Alarm.WRONG_NAME,
            "it calls itself 'pg9'",
            id="another name than configured",
        ),
        pytest.param(
            "pg2",
            statement("pg2", source=Source.PATRONI, cluster="batman"),
            None,
            "",
            id="a Patroni node has a scope of its own",
        ),
    ],
)
def test_whose_words_are_accepted(entry: str, said: Statement, alarm: Alarm | None, why: str) -> None:
    made = board("pg2")
    made.hear(entry, said, NOW)
    assert (made.peers[entry].alarm, made.peers[entry].alarm_detail) == (alarm, why)
    assert (made.peers[entry].statement is None) == (alarm is not None)


def test_one_agent_under_two_entries_counts_once() -> None:
    made = board("10.0.0.2:8008", "10.0.0.3:8008", chosen=policy(expected_members=None))
    made.policy = policy(expected_members=3)
    made.hear("10.0.0.2:8008", statement("pg2"), NOW)
    made.hear("10.0.0.3:8008", statement("pg2"), NOW)
    second = made.peers["10.0.0.3:8008"]
    assert (second.alarm, second.counts) == (Alarm.DUPLICATE, False)
    assert "10.0.0.2:8008" in second.alarm_detail
    assert made.members(NOW) == (3, 2)


def test_one_agent_under_two_listed_names_counts_once() -> None:
    made = board("pg2", "alias")
    made.hear("alias", statement("pg2"), NOW)
    assert (made.peers["alias"].alarm, made.members(NOW)) == (
        Alarm.WRONG_NAME,
        (3, 1),
    )  # pg2 is not heard yet
    made.hear("pg2", statement("pg2"), NOW)
    made.hear("alias", statement("pg2"), NOW)
    assert (made.peers["alias"].alarm, made.members(NOW)) == (Alarm.DUPLICATE, (2, 2))


def test_an_agent_that_lost_one_of_its_addresses_is_heard_by_the_other() -> None:
    made = board("10.0.0.2:8008", "10.0.0.3:8008", chosen=policy(expected_members=3))
    made.hear("10.0.0.2:8008", statement("pg2", age=2.0), NOW)
    made.hear("10.0.0.3:8008", statement("pg2", age=0.0), NOW)
    assert made.peers["10.0.0.3:8008"].alarm is Alarm.DUPLICATE
    made.hear("10.0.0.3:8008", statement("pg2", age=-0.001), NOW + 0.001)
    assert made.peers["10.0.0.3:8008"].alarm is None


def test_a_stranger_in_the_place_of_a_serving_peer_does_not_shorten_its_drain() -> None:
    made = board("pg2")
    made.hear("pg2", statement("pg2", snap(), serving=True, age=1.0), NOW)
    made.hear("pg2", statement("pg9", age=0.5), NOW)
    assert made.peers["pg2"].silent_since == NOW - 0.5


def test_an_unknown_entry_is_nobody() -> None:
    made = board()
    before = dict(made.peers)
    made.hear("pg9", statement("pg9"), NOW)
    made.miss("pg9", NOW, NOW)
    made.misunderstand("pg9", "nonsense", NOW)
    made.end_call("pg9", NOW, NOW)
    made.ask_directly("pg9", snap(), NOW)
    assert made.peers == before


def test_an_answer_that_cannot_be_read_is_no_evidence() -> None:
    made = board()
    made.misunderstand("pg2", "no JSON", NOW)
    assert made.peers["pg2"].alarm is Alarm.MISUNDERSTOOD
    assert made.members(NOW) == (3, 2)
    assert made.primary(NOW).ok


def test_silence() -> None:
    made = board()
    made.miss("pg2", NOW - 0.1, NOW)
    assert made.peers["pg2"].silent_since == NOW - 0.1


@pytest.mark.parametrize(
    ("took", "counts"),
    [
        pytest.param(1.0 + FROZEN, True, id="as long as a call may take on a busy machine"),
        pytest.param(1.001 + FROZEN, False, id="longer: the agent was frozen meanwhile"),
    ],
)
def test_a_call_that_spanned_a_freeze_completes_no_round(took: float, counts: bool) -> None:
    made = board("pg2")
    made.end_call("pg2", NOW, NOW + took)
    assert made.peers["pg2"].last_call == (Call(NOW, NOW + took) if counts else None)


def test_what_a_silent_peers_postgres_says() -> None:
    made = board()
    made.ask_directly("pg2", snap(timeline=2), NOW)
    assert made.peers["pg2"].asked_directly == snap(timeline=2)


def test_a_new_list_of_peers_keeps_what_is_known_of_those_that_stay() -> None:
    made = board()
    made.replace_peers([Peer("pg3", witness=True), Peer("pg4")], NOW)
    assert list(made.peers) == ["pg3", "pg4"]
    assert made.peers["pg3"].witness
    assert made.peers["pg3"].statement is not None
    assert made.members(NOW) == (3, 2)


def test_a_newcomer_among_the_peers_does_not_take_a_serving_primary_down() -> None:
    made = board()
    assert made.primary(NOW).ok
    made.replace_peers([Peer("pg2"), Peer("pg3"), Peer("pg4")], NOW)
    assert made.primary(NOW).ok
    made.miss("pg4", NOW, NOW + 1.0)
    made.end_call("pg4", NOW, NOW + 1.0)
    assert made.primary(NOW + 1.0).ok


def test_a_newcomer_is_asked_before_a_new_primary_serves() -> None:
    made = board(remembered=newly())
    made.replace_peers([Peer("pg2"), Peer("pg3"), Peer("pg4")], NOW)
    assert made.primary(NOW).reason is Reason.START_GATE


# Verdicts are computed when asked.


def test_nothing_stores_a_200() -> None:
    made = board()
    assert made.primary(NOW).ok
    assert made.primary(NOW + 1.9).ok
    assert made.primary(NOW + 1.901).reason is Reason.POSTGRES_STALE
    assert not made.memory.serving


def test_time_alone_lets_a_winner_that_is_gone_go() -> None:
    """No new evidence: the wait of a loser runs out by itself, as soon as anybody asks."""
    lost = Conflict((Rival(THERE, NOW),), Signals(THERE, THERE, HERE), THERE)
    made = board("pg2", remembered=memory(conflict=lost))
    made.policy = policy(max_age=60.0, round_max_age=60.0)
    made.end_call("pg2", NOW, NOW + 0.1)
    assert made.primary(NOW + 9.9).reason is Reason.LOST_CONFLICT
    assert made.primary(NOW + 10.0 + SETTLED).reason is Reason.START_GATE
    made.end_call("pg2", NOW + 10.2, NOW + 10.3)
    assert made.primary(NOW + 10.3).ok


def test_every_change_of_evidence_or_service_has_a_version() -> None:
    made = board()
    seen = [made.evidence_version]

    def changed() -> bool:
        seen.append(made.evidence_version)
        return seen[-1] != seen[-2]

    made.primary(NOW)
    assert not changed()
    made.stop(NOW)
    assert changed()
    made.primary(NOW)
    assert changed()
    made.primary(NOW)
    assert not changed()


def test_a_lag_that_is_asked_for() -> None:
    made = board(snapshot=follower("pg2", replayed_lsn=900), remembered=newly())
    assert made.replica(NOW, Ask(LagLimit(100))).ok
    assert made.replica(NOW, Ask(LagLimit(99))).reason is Reason.LAGGING
    assert made.attached(NOW, "sync").reason is Reason.SYNC_UNKNOWN


# What must outlive the process.


def test_the_first_200_waits_for_the_state_file() -> None:
    made = board(remembered=newly(2, mark=1), snapshot=snap(timeline=2))
    waiting = made.unsaved_service(NOW)
    assert waiting == Served(SYSTEM, 2, NOW)
    made.saved(replace(made.memory, high_water={SYSTEM: 2}), NOW)
    assert made.primary(NOW).ok
    assert made.unsaved_service(NOW) is None


def test_nothing_is_saved_for_a_timeline_that_another_rule_refuses() -> None:
    made = board(remembered=newly(2, mark=1), snapshot=snap(timeline=2))
    made.stop(NOW)
    assert made.unsaved_service(NOW) is None


# What an operator changes.


def test_maintenance() -> None:
    made = board()
    made.maintain(Maintenance(NOW + 60), NOW)
    assert made.primary(NOW + 1).reason is Reason.MAINTENANCE
    assert made.replica(NOW + 1).reason is Reason.MAINTENANCE
    assert made.running(NOW + 1).ok
    made.maintain(None, NOW + 1)
    assert made.primary(NOW + 1).ok


def test_an_operator_clears_a_stale_timeline_for_this_node_alone() -> None:
    made = board(remembered=memory(high_water={SYSTEM: 5}))
    assert made.primary(NOW).reason is Reason.STALE_TIMELINE
    assert made.forgive(NOW) == ["stale_timeline"]
    assert made.primary(NOW).ok
    assert made.memory.high_water == {SYSTEM: 5}


def test_an_operator_clears_a_conflict_with_a_rival_that_is_gone() -> None:
    tied = Conflict((Rival(THERE, NOW - 99),), Signals(THERE, None, HERE), None)
    made = board("pg2", remembered=memory(conflict=tied, yields_to=THERE))
    made.end_call("pg2", NOW - 0.3, NOW - 0.2)
    assert made.primary(NOW).reason is Reason.DIVERGED
    assert made.forgive(NOW) == ["conflict"]
    assert made.primary(NOW).ok


def test_there_is_nothing_to_clear() -> None:
    assert board().forgive(NOW) == []


# What the others are told.


def told(made: Board, now: float = NOW) -> Statement:
    """Our description as another agent reads it."""
    return statement_of(decode(encode(made.describe(now))), now, now)


def test_a_serving_primary_describes_itself() -> None:
    found = told(board())
    assert (found.name, found.cluster, found.incarnation) == ("pg1", "main", "start of pg1")
    assert (found.serving, found.stopped_serving_at, found.reason) == (True, None, "primary")
    assert found.high_water == ((SYSTEM, 1),)
    assert found.snapshot is not None
    assert (found.role, found.timeline, found.address) == (Role.PRIMARY, 1, "10.0.0.1:5432")
    assert found.started_at == NOW - 500
    assert dict(found.tags) == {"zone": "az1", "ssd": True}
    assert [(sight.name, sight.heard, sight.role) for sight in found.sees] == [
        ("pg2", True, Role.REPLICA),
        ("pg3", True, Role.REPLICA),
    ]


def test_who_has_stopped_says_since_when() -> None:
    made = board()
    made.primary(NOW)
    made.stop(NOW + 1)
    found = told(made, NOW + 1.5)
    assert (found.serving, found.reason) == (False, "stopping")
    assert found.stopped_serving_at == pytest.approx(NOW)
    assert found.snapshot is not None  # PostgreSQL is still a primary


@pytest.mark.parametrize(
    ("noted", "started", "stopped"),
    [
        pytest.param(
            9.0, 1.0, 9.0 - SAVE_SERVED_EVERY, id="its predecessor may have served until the next note"
        ),
        pytest.param(9.0, 8.0, 8.0, id="but not past its own start"),
        pytest.param(0.5, 9.0, 0.5, id="it served itself"),
    ],
)
def test_until_when_a_predecessor_may_have_served(noted: float, started: float, stopped: float) -> None:
    made = board(
        "pg2",
        remembered=newly(served=served(ago=noted), started_at=NOW - started, term=None),
        snapshot=follower(),
    )
    found = told(made)
    assert found.stopped_serving_at == pytest.approx(NOW - stopped)


def primary_without_round(**more: Any) -> Board:
    made = board("pg2", remembered=newly(term=None), **more)
    made.hear("pg2", statement("pg2", snap(), serving=True), NOW)
    return made


def test_a_primary_says_nothing_of_its_postgres_before_it_knows_to_whom_it_yields() -> None:
    made = primary_without_round()
    assert told(made).snapshot is None
    made.hear("pg2", statement("pg2", snap(), serving=True, age=0.0), NOW + 0.1)
    made.end_call("pg2", NOW, NOW + 0.1)
    found = told(made, NOW + 0.1)
    assert found.snapshot is not None
    assert found.yields_to == Candidate("pg2", 1)


def test_nor_before_dns_has_named_anybody() -> None:
    made = Board(MINE, policy(expected_members=2), newly(term=None))
    made.observe(snap(), NOW)
    assert told(made).snapshot is None
    alone = Board(MINE, DEFAULT, newly(term=None))
    alone.observe(snap(), NOW)
    assert told(alone).snapshot is not None


def test_who_serves_in_the_end_without_anybody_in_dns_says_so() -> None:
    made = Board(MINE, policy(expected_members=2), newly(term=None))
    made.observe(snap(), NOW)
    made.observe(snap(age=-10.0), NOW + 10.0)
    made.memory = replace(made.memory, term=term(since=0.0, newly=True, seen_at=NOW + 10.0))
    found = told(made, NOW + 10.0)
    assert (found.serving, found.timeline) == (True, 1)


def test_nothing_is_told_of_a_postgres_that_cannot_be_asked() -> None:
    made = board()
    made.observe_failure(failure(detail="x" * 5000), NOW)
    found = told(made)
    assert (found.snapshot, found.reason) == (None, "postgres_down")
    assert 1000 < len(found.detail) <= 2000


def test_members_found_by_dns_are_known_by_address_and_differ_only_in_number() -> None:
    two = policy(expected_members=2)
    here, there = board("10.0.0.2:8008", chosen=two), board("10.0.0.1:8008", chosen=two)
    assert here.members_hash() == there.members_hash()
    assert here.members_hash() != board("10.0.0.2:8008", chosen=policy(expected_members=3)).members_hash()


def test_members_hash_tells_lists_apart() -> None:
    assert board("pg2", "pg3").members_hash() == board("pg3", "pg2").members_hash()
    assert board("pg2", "pg3").members_hash() != board("pg2").members_hash()


def test_another_cluster_under_our_name_refuses_both() -> None:
    made = board()
    made.hear("pg2", statement("pg2", snap(system_identifier=OTHER_SYSTEM), age=0.0), NOW)
    assert made.primary(NOW).reason is Reason.SYSTEM_ID_MISMATCH
