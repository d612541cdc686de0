"""What is known of the other members: heard, silent, ignored; serving, stopped, unknown."""

from dataclasses import replace
from typing import Any

import pytest

from healthagent.core.members import (
    hear,
    heard,
    heard_count,
    last_round,
    majority,
    majority_heard_at,
    member_count,
    miss,
    refuse,
    snapshot_of,
    stale,
)
from healthagent.core.model import Snapshot
from healthagent.core.peer import Alarm, Call, Peer, Served, Source, Statement
from healthagent.core.view import View
from tests.builders import (
    NOW,
    OTHER_SYSTEM,
    SYSTEM,
    follower,
    following,
    memory,
    peer,
    policy,
    rival,
    silent,
    snap,
    statement,
    view,
    witness,
)

DEFAULT = policy()


@pytest.mark.parametrize(
    ("known", "is_heard"),
    [
        pytest.param(following(age=2.0), True, id="answered 2.0 s ago"),
        pytest.param(following(age=2.001), False, id="answered 2.001 s ago"),
        pytest.param(following(age=2.001, received_at=NOW), False, id="answered just now to an old question"),
        pytest.param(silent(), False, id="never answered"),
        pytest.param(replace(following(), alarm=Alarm.WRONG_NAME), False, id="ignored"),
        pytest.param(witness(), True, id="a witness"),
        pytest.param(
            replace(following(age=1.9), silent_since=NOW - 1.4), True, id="one unanswered question later"
        ),
    ],
)
def test_heard(known: Peer, is_heard: bool) -> None:
    assert (heard(known, NOW, DEFAULT) is not None) == is_heard
    assert heard_count(view(peers=[known]), DEFAULT) == 1 + is_heard


def told(snapshot_age: float, answer_age: float = 0.3) -> Peer:
    """An answer received `answer_age` ago with a snapshot that was then `snapshot_age` old."""
    received = NOW - answer_age
    snapshot = replace(snap(), asked_at=received - snapshot_age)
    return peer(said=statement(snapshot=snapshot, received_at=received, asked_at=received - 0.01))


DIRECT = snap(age=3.0)


@pytest.mark.parametrize(
    ("known", "is_known"),
    [
        pytest.param(told(3.0), True, id="a snapshot of 3.0 s, transit included"),
        pytest.param(told(3.001), False, id="a snapshot of 3.001 s: the server may be frozen"),
        pytest.param(
            told(2.5, answer_age=1.9), True, id="an old snapshot in an old answer, each fresh enough"
        ),
        pytest.param(peer(said=statement()), False, id="the agent answers and shows no snapshot"),
        pytest.param(
            replace(silent(), asked_directly=DIRECT), True, id="its PostgreSQL itself, asked 3.0 s ago"
        ),
        pytest.param(
            replace(silent(), asked_directly=snap(age=3.001)), False, id="its PostgreSQL, asked 3.001 s ago"
        ),
        pytest.param(
            replace(peer(said=statement()), asked_directly=DIRECT),
            False,
            id="while the agent answers, its PostgreSQL is not asked behind its back",
        ),
    ],
)
def test_snapshot_of_a_peer(known: Peer, is_known: bool) -> None:
    assert (snapshot_of(known, NOW, DEFAULT) is not None) == is_known


@pytest.mark.parametrize(
    ("peers", "count"),
    [
        pytest.param([], 1, id="alone"),
        pytest.param([silent("pg2"), witness()], 3, id="a silent one and a witness"),
        pytest.param(
            [replace(silent("pg2"), alarm=Alarm.FOREIGN_CLUSTER), replace(silent(), alarm=Alarm.WRONG_NAME)],
            3,
            id="ignored entries stay members",
        ),
        pytest.param(
            [replace(silent("pg2"), alarm=Alarm.SELF), replace(silent("pg3"), alarm=Alarm.DUPLICATE)],
            1,
            id="this agent and a second entry of one agent do not",
        ),
    ],
)
def test_member_count(peers: list[Peer], count: int) -> None:
    assert member_count(view(peers=peers), DEFAULT) == count
    assert member_count(view(peers=peers), policy(expected_members=5)) == 5


@pytest.mark.parametrize(("members", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_majority(members: int, needed: int) -> None:
    assert majority(members) == needed


def quiet(*ages: float, **more: Any) -> View:
    """Peers whose last answers came so many seconds ago."""
    peers = [
        following(f"pg{number}", age=age, received_at=NOW - age) for number, age in enumerate(ages, start=2)
    ]
    return view(peers=peers, **more)


@pytest.mark.parametrize(
    ("evidence", "ago"),
    [
        pytest.param(quiet(), 0, id="alone: always a majority"),
        pytest.param(quiet(4.0), 4.0, id="of two, both"),
        pytest.param(quiet(4.0, 9.0), 4.0, id="of three, the younger answer makes the majority"),
        pytest.param(quiet(1.0, 4.0, 9.0, 9.0), 4.0, id="of five, the second youngest"),
        pytest.param(view(peers=[silent("pg2"), silent("pg3")]), 500, id="never: since the agent started"),
        pytest.param(
            view(
                peers=[
                    replace(following(age=1.0, received_at=NOW - 1.0), alarm=Alarm.MISUNDERSTOOD),
                    silent("pg3"),
                ]
            ),
            1.0,
            id="one garbled answer does not undo the ones before it",
        ),
        pytest.param(
            view(peers=[replace(following(), alarm=Alarm.DUPLICATE), silent("pg3")]),
            500,
            id="one agent under two entries is heard once",
        ),
    ],
)
def test_majority_heard_at(evidence: View, ago: float) -> None:
    assert NOW - majority_heard_at(evidence, DEFAULT) == pytest.approx(ago)


def called(name: str, began: float, ended: float) -> Peer:
    return replace(silent(name), last_call=Call(NOW - began, NOW - ended))


@pytest.mark.parametrize(
    ("peers", "call"),
    [
        pytest.param([], None, id="nobody to ask"),
        pytest.param([called("pg2", 0.9, 0.8)], (0.9, 0.8), id="one peer"),
        pytest.param(
            [called("pg2", 0.9, 0.8), called("pg3", 1.5, 0.5)],
            (1.5, 0.8),
            id="what the slowest has completed",
        ),
        pytest.param([called("pg2", 0.9, 0.8), silent("pg3", last_call=None)], None, id="one not asked yet"),
        pytest.param(
            [called("pg2", 0.9, 0.8), replace(silent("pg3"), last_call=None, alarm=Alarm.SELF)],
            (0.9, 0.8),
            id="this agent itself need not be asked",
        ),
    ],
)
def test_last_round(peers: list[Peer], call: tuple[float, float] | None) -> None:
    found = last_round(view(peers=peers))
    assert (found and (NOW - found.begun_at, NOW - found.ended_at)) == (call and pytest.approx(call))


@pytest.mark.parametrize(
    ("timeline", "identifier", "is_stale"),
    [
        pytest.param(3, SYSTEM, False, id="at the mark"),
        pytest.param(2, SYSTEM, True, id="below it"),
        pytest.param(4, SYSTEM, False, id="above it"),
        pytest.param(2, OTHER_SYSTEM, False, id="another cluster has no mark"),
        pytest.param(None, SYSTEM, False, id="an unknown timeline is not old"),
        pytest.param(2, None, False, id="an unknown cluster has no mark"),
    ],
)
def test_stale(timeline: int | None, identifier: int | None, is_stale: bool) -> None:
    assert stale(timeline, identifier, memory(high_water={SYSTEM: 3})) == is_stale


# What is remembered of a peer's service while its statements come and go.

SERVING = statement("pg2", snap(), serving=True, age=9.0)
REBORN: dict[str, Any] = {"incarnation": "a later start of pg2", "started_at": NOW - 4.0}


def stopped(ago: float | None, snapshot: Snapshot | None = None, **more: Any) -> Statement:
    """pg2 does not serve and says when it stopped."""
    at = None if ago is None else NOW - ago
    return statement("pg2", snapshot or snap(age=0.4), stopped_serving_at=at, **more)


@pytest.mark.parametrize(
    ("statements", "ago"),
    [
        pytest.param([stopped(None)], None, id="it never served"),
        pytest.param([SERVING], 9.0 - 0.01, id="it serves: until the answer came"),
        pytest.param([SERVING, stopped(2.0)], 2.0, id="it stopped, by its own word"),
        pytest.param([SERVING, stopped(8.0), stopped(7.5)], 7.5, id="its last word counts"),
        pytest.param([stopped(2.0)], 2.0, id="it had stopped before we first heard it"),
        pytest.param([SERVING, stopped(2.0, follower())], None, id="it is a replica since"),
        pytest.param(
            [SERVING, stopped(None, **REBORN)], 4.0, id="its agent restarted and forgot: until it started"
        ),
        pytest.param(
            [SERVING, stopped(7.0, **REBORN)],
            4.0,
            id="its agent restarted and recalls an older note: until it started",
        ),
        pytest.param(
            [SERVING, stopped(7.0, **REBORN), stopped(7.0, **REBORN)],
            4.0,
            id="what a restarted agent recalls of its predecessor never shortens the wait",
        ),
        pytest.param(
            [SERVING, stopped(4.0, **REBORN)],
            4.0,
            id="its agent restarted soon after the note, and says that it stopped when it started",
        ),
        pytest.param(
            [SERVING, stopped(7.0, **REBORN), stopped(1.0, **REBORN)],
            1.0,
            id="the restarted agent served itself, and stopped",
        ),
        pytest.param(
            [SERVING, stopped(None, follower(), **REBORN)], None, id="its agent restarted beside a replica"
        ),
        pytest.param(
            [statement("pg2", snap(), serving=True, age=9.0, source=Source.PATRONI), stopped(None)],
            0.3 - 0.01,
            id="a Patroni node does not say when: until it was heard to have stopped",
        ),
    ],
)
def test_until_when_a_peer_may_have_served(statements: list[Statement], ago: float | None) -> None:
    known = peer("pg2")
    for said in statements:
        known = hear(known, said)
    assert (known.served_until and NOW - known.served_until) == (ago and pytest.approx(ago))


def test_a_serving_peer_is_remembered_as_such_when_it_stops() -> None:
    known = hear(hear(peer("pg2"), SERVING), stopped(2.0))
    assert known.heard_serving == Served(SYSTEM, 1, SERVING.received_at)


def test_an_answer_overtaken_by_a_younger_one_is_dropped() -> None:
    young, old = statement(age=0.3), statement(age=0.301, received_at=NOW)
    assert hear(hear(peer(), young), old).statement is young
    assert hear(hear(peer(), old), young).statement is young


def test_silence_begins_with_the_first_unanswered_question() -> None:
    known = hear(peer(), statement(age=3.0))
    known = miss(miss(known, NOW - 2.0), NOW - 1.0)
    assert known.silent_since == NOW - 2.0
    assert hear(known, statement()).silent_since is None


def test_an_unanswered_question_older_than_the_last_answer_is_no_silence() -> None:
    known = hear(peer(), statement(age=1.0))
    assert miss(known, NOW - 1.0).silent_since is None
    assert miss(known, NOW - 0.999).silent_since == NOW - 0.999


def test_an_ignored_entry_keeps_what_was_heard_before() -> None:
    known = refuse(rival(serving=True), Alarm.WRONG_NAME, "it calls itself 'x'")
    assert (known.statement, known.alarm_detail) == (rival(serving=True).statement, "it calls itself 'x'")
    again = hear(known, statement())
    assert (again.alarm, again.alarm_detail) == (None, "")


def test_whoever_answers_in_its_place_the_peer_stays_silent() -> None:
    """The drain of a serving peer counts from its first unanswered question, not from its last answer."""
    known = miss(rival(serving=True, age=1.0), NOW - 0.5)
    assert refuse(known, Alarm.MISUNDERSTOOD, "no JSON").silent_since == NOW - 0.5


@pytest.mark.parametrize(
    ("alarm", "believed"),
    [
        pytest.param(None, True, id="its agent is silent"),
        pytest.param(Alarm.MISUNDERSTOOD, True, id="its agent cannot be understood"),
        pytest.param(Alarm.SELF, False, id="the entry is this node: no rival of itself"),
        pytest.param(Alarm.DUPLICATE, False, id="another entry of the same agent"),
        pytest.param(Alarm.FOREIGN_CLUSTER, False, id="another cluster's node"),
        pytest.param(Alarm.WRONG_NAME, False, id="another node"),
    ],
)
def test_whose_postgres_is_believed(alarm: Alarm | None, believed: bool) -> None:
    known = replace(silent(), asked_directly=DIRECT, alarm=alarm)
    assert (snapshot_of(known, NOW, policy()) is DIRECT) == believed


def test_what_its_postgres_said_is_dropped_when_the_agent_speaks_again() -> None:
    assert hear(replace(silent(), asked_directly=DIRECT), statement()).asked_directly is None


def test_label() -> None:
    assert replace(following("pg2"), name="10.0.0.2:8008").label == "10.0.0.2:8008"
    assert replace(following("pg2"), name="10.0.0.2:8008", discovered=True).label == "pg2"
    assert Peer("10.0.0.2:8008", discovered=True).label == "10.0.0.2:8008"
