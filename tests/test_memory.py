"""What one decision leaves to the next: terms, the high-water mark, yielding, service."""

from dataclasses import replace
from typing import Any

import pytest

from healthagent.core.memory import KNOWN_CLUSTERS, raise_high_water, remember, serve
from healthagent.core.model import Local, Reason, Verdict
from healthagent.core.peer import Alarm, Candidate, Peer, Served
from healthagent.core.term import is_newly, round_complete
from healthagent.core.view import Conflict, Memory, Policy, Rival, Signals, Term
from tests.builders import (
    NOW,
    OTHER_SYSTEM,
    SYSTEM,
    failure,
    follower,
    following,
    local,
    memory,
    newly,
    peer,
    policy,
    rival,
    served,
    silent,
    snap,
    statement,
    term,
    view,
)

DEFAULT = policy()
HERE, THERE = Candidate("pg1", 1), Candidate("pg2", 2)
NONE_BEFORE = memory(term=None, served=None, serving=False, high_water={}, saved_high_water={})


def term_after(evidence: Local, remembered: Memory, peers: list[Peer] | None = None) -> Term | None:
    return remember(view(peers=peers, remembered=remembered, local=evidence), DEFAULT).term


# Terms: an unbroken stretch of evidence that this node is primary on one timeline.


@pytest.mark.parametrize(
    ("evidence", "remembered", "newly_primary"),
    [
        pytest.param(local(snap()), NONE_BEFORE, True, id="the first snapshot since the agent started"),
        pytest.param(
            local(snap()),
            replace(NONE_BEFORE, served=served(ago=10.0)),
            False,
            id="the agent restarted, and it served this timeline 10.0 s ago",
        ),
        pytest.param(
            local(snap()),
            replace(NONE_BEFORE, served=served(ago=10.001)),
            True,
            id="the agent restarted, and it served this timeline 10.001 s ago",
        ),
        pytest.param(
            local(snap()),
            replace(NONE_BEFORE, served=replace(served(), system_identifier=OTHER_SYSTEM)),
            True,
            id="what it served was another cluster",
        ),
        pytest.param(local(snap(timeline=2)), memory(), True, id="another timeline"),
        pytest.param(local(snap(system_identifier=OTHER_SYSTEM)), memory(), True, id="another cluster"),
        pytest.param(
            local(snap()), memory(term=term(broken=True)), False, id="back after lost evidence, served lately"
        ),
        pytest.param(
            local(snap()),
            memory(term=term(broken=True), served=served(ago=60)),
            True,
            id="back after lost evidence, served a minute ago",
        ),
        pytest.param(
            local(snap()), memory(term=term(seen_at=NOW - 2.101)), False, id="2.001 s between two snapshots"
        ),
    ],
)
def test_a_new_term_begins(evidence: Local, remembered: Memory, newly_primary: bool) -> None:
    found = term_after(evidence, remembered)
    assert found is not None
    assert (found.since, found.newly, found.broken) == (NOW, newly_primary, False)


@pytest.mark.parametrize(
    ("evidence", "remembered", "expected"),
    [
        pytest.param(local(snap()), memory(), term(), id="as before"),
        pytest.param(
            local(snap()), memory(term=term(seen_at=NOW - 2.1)), term(), id="2.0 s between two snapshots"
        ),
        pytest.param(local(follower()), memory(), None, id="a replica now"),
        pytest.param(local(snap(timeline=None)), memory(), None, id="no timeline"),
        pytest.param(local(snap(age=2.0)), memory(), term(seen_at=NOW - 2.0), id="a snapshot of 2.0 s"),
        pytest.param(local(snap(age=2.001)), memory(), term(broken=True), id="a snapshot of 2.001 s"),
        pytest.param(
            local(snap(), failure=failure()), memory(), term(broken=True), id="PostgreSQL is known to be down"
        ),
        pytest.param(
            local(snap(), failure=failure(conclusive=False)), memory(), term(), id="one poll timed out"
        ),
    ],
)
def test_a_term_goes_on_or_ends(evidence: Local, remembered: Memory, expected: Term | None) -> None:
    assert term_after(evidence, remembered) == expected


@pytest.mark.parametrize(
    ("remembered", "expected"),
    [
        pytest.param(newly(), True, id="a new term that has not served"),
        pytest.param(memory(), False, id="an old term"),
        pytest.param(newly(served=served(ago=0.9)), False, id="it has served in this term"),
        pytest.param(newly(served=served(ago=1.1)), True, id="it served before this term"),
        pytest.param(newly(served=served(2)), True, id="it served another timeline"),
        pytest.param(memory(term=None), False, id="no primary at all"),
    ],
)
def test_newly_primary(remembered: Memory, expected: bool) -> None:
    assert is_newly(view(remembered=remembered)) == expected


def test_a_round_is_complete_when_every_call_began_in_this_term() -> None:
    assert round_complete(view(remembered=newly(since=0.3)))
    assert not round_complete(view(remembered=newly(since=0.299)))
    assert round_complete(view(peers=[], remembered=newly(since=0)))
    assert not round_complete(view(remembered=memory(term=None)))


# The high-water mark.


def mark_after(*peers: Peer, before: dict[int, int] | None = None) -> dict[int, int]:
    start = memory(high_water={SYSTEM: 1} if before is None else before)
    return dict(remember(view(peers=peers, remembered=start), DEFAULT).high_water)


@pytest.mark.parametrize(
    ("known", "mark"),
    [
        pytest.param(rival("pg2", 2, serving=True), 2, id="a peer serves a newer timeline"),
        pytest.param(rival("pg2", 2), 1, id="a newer timeline that nobody serves raises nothing"),
        pytest.param(following("pg2", high_water=((SYSTEM, 3),)), 3, id="a replica tells of one"),
        pytest.param(following("pg2", high_water=((SYSTEM, 3),), age=900), 3, id="however long ago"),
        pytest.param(
            following("pg2", high_water=((SYSTEM, 3), (SYSTEM, 2))),
            3,
            id="the highest of two for one cluster",
        ),
        pytest.param(following("pg2", high_water=((OTHER_SYSTEM, 3),)), 1, id="another cluster's"),
        pytest.param(
            replace(following("pg2", high_water=((SYSTEM, 3),)), alarm=Alarm.FOREIGN_CLUSTER),
            1,
            id="an ignored entry",
        ),
    ],
)
def test_high_water(known: Peer, mark: int) -> None:
    assert mark_after(known)[SYSTEM] == mark


def test_the_number_of_known_clusters_is_bounded_but_ours_is_always_kept() -> None:
    noise = tuple((number, 1) for number in range(1, 60))
    known = mark_after(following("pg2", high_water=noise), before={})
    assert len(known) == KNOWN_CLUSTERS
    later = mark_after(following("pg2", high_water=(*noise, (SYSTEM, 4))), before=known)
    assert later[SYSTEM] == 4
    full = memory(high_water=known, saved_high_water=known)
    assert raise_high_water(full, served(2)).saved_high_water[SYSTEM] == 2


def test_the_mark_is_durable_only_when_said_so() -> None:
    before = memory(high_water={SYSTEM: 1}, saved_high_water={SYSTEM: 1})
    waiting = raise_high_water(before, served(2), saved=False)
    assert (waiting.high_water, waiting.saved_high_water) == ({SYSTEM: 2}, {SYSTEM: 1})
    assert raise_high_water(before, served(2)).saved_high_water == {SYSTEM: 2}
    assert raise_high_water(before, Served(None, 2, NOW)) is before


# Serving.


def after_answer(ok: bool, remembered: Memory, chosen: Policy = DEFAULT) -> Memory:
    verdict = Verdict(ok, Reason.PRIMARY if ok else Reason.DIVERGED, "")
    return serve(remembered, verdict, view(remembered=remembered), chosen)


def test_a_permission_is_remembered_with_its_instant() -> None:
    found = after_answer(True, newly())
    assert (found.serving, found.served) == (True, Served(SYSTEM, 1, NOW))
    assert found.high_water == {SYSTEM: 1}


def test_a_refusal_keeps_the_last_permission() -> None:
    found = after_answer(False, memory())
    assert (found.serving, found.served) == (False, served())


def test_without_a_state_file_the_mark_rises_with_the_first_200() -> None:
    found = after_answer(True, newly(2, mark=1), policy(durable=False))
    assert found.high_water == {SYSTEM: 2}
    assert after_answer(True, newly(2, mark=1)).high_water == {SYSTEM: 1}


# Yielding.


def yields(remembered: Memory, *peers: Peer, timeline: int = 1, **more: Any) -> Memory:
    return remember(view(snap(timeline=timeline), peers, remembered, **more), DEFAULT)


SERVING = rival("pg2", 1, serving=True)
LOST = Conflict((Rival(THERE, NOW - 0.5),), Signals(THERE, THERE, HERE), THERE)
NOT_ASKED: dict[str, Any] = {"since": 0.1}  # the last round began before this term


@pytest.mark.parametrize(
    ("remembered", "peers", "to"),
    [
        pytest.param(newly(2, mark=1), [SERVING], Candidate("pg2", 1), id="new, and it has heard one serve"),
        pytest.param(
            newly(2, mark=1, **NOT_ASKED),
            [rival("pg2", 1, serving=True, age=30)],
            Candidate("pg2", 1),
            id="new, and the one that served is silent: until a round has ended",
        ),
        pytest.param(newly(2, mark=1), [rival("pg2", 1)], None, id="new, and the other does not serve"),
        pytest.param(memory(), [rival("pg2", 1, serving=True)], None, id="it serves itself"),
        pytest.param(
            newly(2, mark=1),
            [peer("pg2", statement("pg2", snap(system_identifier=OTHER_SYSTEM), serving=True))],
            None,
            id="another cluster's primary serves",
        ),
        pytest.param(
            newly(2, mark=2), [rival("pg2", 1, serving=True)], None, id="a stale primary serves: not for long"
        ),
        pytest.param(
            newly(2, mark=1),
            [replace(SERVING, alarm=Alarm.WRONG_NAME)],
            None,
            id="an ignored entry serves",
        ),
        pytest.param(
            memory(conflict=LOST),
            [rival("pg2", 2), silent("pg3")],
            THERE,
            id="it serves, and has lost: at once",
        ),
    ],
)
def test_whom_a_primary_yields_to(remembered: Memory, peers: list[Peer], to: Candidate | None) -> None:
    timeline = remembered.term.timeline if remembered.term else 1
    assert yields(remembered, *peers, timeline=timeline).yields_to == to


WINNING = [rival("pg2", 1), following("pg3", of="pg1")]  # this node is on timeline 2: two signals for it


@pytest.mark.parametrize(
    ("remembered", "peers", "still"),
    [
        pytest.param(newly(2, mark=1), WINNING, False, id="it wins, and every peer has been asked"),
        pytest.param(
            newly(2, mark=1, **NOT_ASKED), WINNING, True, id="it wins, but not every peer was asked"
        ),
        pytest.param(newly(2, mark=1), [following("pg2", of="pg3")], False, id="the rival is a replica now"),
        pytest.param(newly(2, mark=1), [rival("pg2", 1, serving=True)], True, id="nobody wins"),
        pytest.param(
            newly(2, mark=1),
            [rival("pg2", 1, serving=True), following("pg3", of="pg2")],
            True,
            id="the other wins",
        ),
    ],
)
def test_yielding_is_latched_until_a_completed_decision(
    remembered: Memory, peers: list[Peer], still: bool
) -> None:
    before = replace(remembered, yields_to=Candidate("pg2", 1))
    after = yields(before, *peers, timeline=2)
    assert (after.yields_to is not None) == still
    assert after.yielded_until == (float("-inf") if still else NOW)


@pytest.mark.parametrize(
    ("gone_for", "still"),
    [
        pytest.param(6.999, True, id="6.999 s: it may come back"),
        pytest.param(7.0, False, id="7.0 s: a drain before takeover_after, should it hear us still"),
    ],
)
def test_a_loser_stops_yielding_a_drain_before_it_takes_over(gone_for: float, still: bool) -> None:
    conflict = replace(LOST, rivals=(Rival(THERE, NOW - gone_for),))
    before = memory(conflict=conflict, yields_to=THERE, serving=False)
    after = yields(before, rival("pg2", 2, serving=True, age=gone_for), silent("pg3"))
    assert (after.yields_to, after.conflict) == (THERE if still else None, conflict)
    assert after.yielded_until == (float("-inf") if still else NOW)
    back = yields(after, rival("pg2", 2, serving=True), silent("pg3"))
    assert back.yields_to == THERE


def test_who_has_once_decided_to_win_does_not_yield_again_by_itself() -> None:
    settled = newly(2, mark=1, yielded_until=NOW - 0.2)
    serving = [rival("pg2", 1, serving=True), following("pg3", of="pg1")]
    assert yields(settled, *serving, timeline=2).yields_to is None
    of_an_earlier_term = replace(settled, yielded_until=NOW - 5)
    assert yields(of_an_earlier_term, *serving, timeline=2).yields_to == Candidate("pg2", 1)


@pytest.mark.parametrize("what", ["conflict", "yields_to", "forgiven"])
def test_a_replica_has_no_conflict_and_nothing_to_yield(what: str) -> None:
    before = memory(conflict=LOST, yields_to=THERE, forgiven=(SYSTEM, 4))
    assert getattr(remember(view(follower("pg2"), remembered=before), DEFAULT), what) is None


# A replica's good moments.


def replica_after(snapshot: Any, *peers: Peer, chosen: Policy = DEFAULT, **before: Any) -> Memory:
    start = memory(term=None, served=None, serving=False, **before)
    return remember(view(snapshot, peers, start), chosen)


@pytest.mark.parametrize(
    ("snapshot", "before", "at"),
    [
        pytest.param(follower("pg2", age=0.2), {}, NOW - 0.2, id="it streams"),
        pytest.param(follower(None), {"streamed_at": NOW - 5}, NOW - 5, id="it streamed 5 s ago"),
        pytest.param(
            follower(None, restores_from_archive=True, replayed_lsn=1001, age=0.2),
            {"replayed_lsn": 1000},
            NOW - 0.2,
            id="it replays from the archive",
        ),
        pytest.param(
            follower(None, restores_from_archive=True),
            {"replayed_lsn": 1000},
            None,
            id="its archive has nothing new",
        ),
        pytest.param(
            follower(None, replayed_lsn=1001),
            {"replayed_lsn": 1000},
            None,
            id="it replays what it had received",
        ),
        pytest.param(
            follower("pg2", age=2.001), {"streamed_at": NOW - 5}, NOW - 5, id="what is stale proves nothing"
        ),
    ],
)
def test_streamed_at(snapshot: Any, before: dict[str, Any], at: float | None) -> None:
    assert replica_after(snapshot, following("pg2"), **before).streamed_at == at


def test_a_replica_follows_rightly_until_its_source_is_superseded() -> None:
    good = rival("pg2", 2, serving=True)
    assert replica_after(follower("pg2", 2), good).followed_at == NOW
    lost = rival("pg2", 2, reason="lost_conflict")
    assert replica_after(follower("pg2", 2), lost, followed_at=NOW - 3).followed_at == NOW - 3


def test_a_replica_is_on_the_right_timeline_until_the_primary_is_on_another() -> None:
    assert replica_after(follower("pg2", 2), rival("pg2", 2, serving=True)).on_timeline_at == NOW
    moved = replica_after(follower("pg2", 1), rival("pg2", 2, serving=True), on_timeline_at=NOW - 3)
    assert moved.on_timeline_at == NOW - 3


def test_a_primary_forgets_its_good_moments_as_a_replica() -> None:
    before = memory(streamed_at=NOW - 1, followed_at=NOW - 1, on_timeline_at=NOW - 1, lagged_at=NOW - 1)
    after = remember(view(remembered=before), DEFAULT)
    assert (after.streamed_at, after.followed_at, after.on_timeline_at, after.lagged_at) == (None,) * 4


@pytest.mark.parametrize(
    ("peers", "alone"),
    [
        pytest.param([silent("pg2"), silent("pg3")], True, id="nobody answers"),
        pytest.param([silent("pg2"), following("pg3")], False, id="a majority is heard"),
        pytest.param([silent("pg2", called=5.0), silent("pg3")], False, id="not every peer was asked yet"),
        pytest.param([silent("pg2")], False, id="of two members"),
    ],
)
def test_a_new_primary_remembers_until_when_it_heard_no_majority(peers: list[Peer], alone: bool) -> None:
    remembered = newly(2, since=4.0, mark=1, yields_to=THERE)
    after = yields(remembered, *peers, timeline=2)
    assert after.alone_at == (NOW if alone else float("-inf"))
    assert after.yields_to == THERE or not alone, "who hears nobody has decided nothing"
