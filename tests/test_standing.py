"""Where each member stands: what was said, while it is fresh, and unknown otherwise."""

from dataclasses import replace

import pytest

from healthagent.board import Board
from healthagent.core.model import Failure, Reason, Role
from healthagent.core.peer import Alarm, Peer, Sight, Source
from healthagent.standing import SILENT, UNASKED, Standing, known_reason, primaries, serving, standings
from tests.bed.boards import PRIMARY, START, board, replica, says

OLD = 2.001  # seconds: older than a peer's answer may be


def three() -> Board:
    """pg1 serves; pg2 follows it, 100 bytes behind; w1 is a witness."""
    made = board(PRIMARY, peers=(Peer("pg2"), Peer("w1", witness=True)))
    told = replace(says("pg2", replica(behind=100)), replica_ok=True, replica_reason="replica")
    made.hear("pg2", replace(told, sees=(Sight("pg1", True, Role.PRIMARY, 3, True),)), START)
    made.hear("w1", replace(says("w1", None), witness=True, reason="witness"), START)
    return made


def of(made: Board, name: str, now: float = START) -> Standing:
    [found] = [standing for standing in standings(made, now) if standing.name == name]
    return found


def test_members_stand_by_name_with_what_they_say() -> None:
    made = three()
    for entry in ("pg2", "w1"):
        made.end_call(entry, START, START)
    found = standings(made, START)
    assert [(one.name, one.own, one.role, one.writes, one.reads, one.reason) for one in found] == [
        ("pg1", True, Role.PRIMARY, True, False, "primary"),
        ("pg2", False, Role.REPLICA, False, True, "replica"),
        ("w1", False, None, False, None, "witness"),
    ]
    assert (found[1].lag_bytes, found[1].upstream, found[1].timeline) == (100, "10.0.0.1:5432", 3)
    assert [(sight.name, sight.heard) for sight in found[1].hears] == [("pg1", True)]
    assert [one.name for one in serving(found)] == [one.name for one in primaries(found)] == ["pg1"]


def test_the_own_verdict_is_asked_for_at_the_moment() -> None:
    made = three()
    assert of(made, "pg1").reason == made.primary(START).reason
    assert of(made, "pg1", START + OLD).reason == made.primary(START + OLD).reason == "postgres_stale"


@pytest.mark.parametrize(("age", "known"), [(2.0, True), (OLD, False)], ids=["just fresh", "just stale"])
def test_unknown_never_looks_like_the_last_known(age: float, known: bool) -> None:
    peer = of(three(), "pg2", START + age)
    assert (peer.heard, peer.role is not None, peer.timeline is not None, peer.reads is not None) == (
        known,
    ) * 4
    assert (peer.reason == SILENT) is not known
    assert peer.age == pytest.approx(age)


def test_a_peer_that_never_answered() -> None:
    made = board(PRIMARY, peers=(Peer("pg2"),))
    assert of(made, "pg2") == Standing("pg2", "pg2")


def test_a_peer_whose_postgres_is_down_is_heard_and_has_no_role() -> None:
    made = board(PRIMARY, peers=(Peer("pg2"),))
    made.hear("pg2", replace(says("pg2", None), reason="postgres_down", detail="nothing listens"), START)
    peer = of(made, "pg2")
    assert (peer.heard, peer.role, peer.writes, peer.reason) == (True, None, False, "postgres_down")
    assert peer.detail == "nothing listens"


def test_an_alarm_says_why_a_peer_is_not_believed() -> None:
    made = board(PRIMARY, peers=(Peer("pg2"),))
    made.hear("pg2", replace(says("pg2", PRIMARY, serving=True), cluster="other"), START)
    peer = of(made, "pg2")
    assert (peer.heard, peer.writes, peer.role, peer.reason) == (False, None, None, Alarm.FOREIGN_CLUSTER)


def test_an_entry_that_leads_back_here_is_no_member() -> None:
    made = board(PRIMARY, peers=(Peer("pg1"),))
    made.hear("pg1", replace(says("pg1", PRIMARY), incarnation=made.identity.incarnation), START)
    assert [one.own for one in standings(made, START)] == [True]


def test_a_patroni_node_does_not_say_whether_it_takes_reads() -> None:
    made = board(PRIMARY, peers=(Peer("pg2"),))
    made.hear("pg2", replace(says("pg2", replica()), source=Source.PATRONI), START)
    assert (of(made, "pg2").reads, of(made, "pg2").reason) == (None, UNASKED)


def test_a_silent_peer_whose_postgres_was_asked_has_a_role_and_no_verdict() -> None:
    made = board(PRIMARY, peers=(Peer("pg2"),))
    made.miss("pg2", START, START)
    made.ask_directly("pg2", replica(), START)
    peer = of(made, "pg2")
    assert (peer.heard, peer.role, peer.writes, peer.reads) == (False, Role.REPLICA, None, None)


def test_the_own_lag_and_failure() -> None:
    made = board(replica(behind=5, late=2.5), name="pg2", peers=(Peer("pg1"),))
    own = of(made, "pg2")
    assert (own.lag_bytes, own.lag_seconds, own.reads) == (5, 2.5, True)
    made.observe_failure(Failure(Reason.POSTGRES_DOWN, "refused", START), START)
    own = of(made, "pg2")
    assert (own.role, own.lag_bytes, own.timeline, own.reason) == (None, None, None, "postgres_down")


@pytest.mark.parametrize(
    ("word", "kept"), [("primary", "primary"), (SILENT, SILENT), ("<script>", "other"), ("", "other")]
)
def test_only_known_words_are_remembered(word: str, kept: str) -> None:
    assert known_reason(word) == kept
