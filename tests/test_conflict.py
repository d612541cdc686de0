"""Who is the rightful one of several primaries: the signals, who wins, and what stays decided."""

from dataclasses import replace
from typing import Any

import pytest

from healthagent.core.conflict import lost_to, resolve, rival_of, spelled_signals, upstream
from healthagent.core.model import Reason, Receiver, Snapshot
from healthagent.core.peer import Candidate, Peer, Source
from healthagent.core.view import Conflict, Memory, Rival, Signals, View
from tests.builders import (
    NOW,
    OTHER_SYSTEM,
    SYSTEM,
    addresses,
    follower,
    following,
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
    witness,
)

DEFAULT = policy()
OLD = Candidate("pg1", 1)  # this node, on timeline 1, serving lately
NEW = Candidate("pg2", 2)


# Rivals.


@pytest.mark.parametrize(
    ("known", "who"),
    [
        pytest.param(rival("pg2", 2), NEW, id="a primary on a higher timeline"),
        pytest.param(rival("pg2", 1), Candidate("pg2", 1), id="a primary on the same timeline"),
        pytest.param(rival("pg2", 2, age=2.0), NEW, id="heard 2.0 s ago"),
        pytest.param(rival("pg2", 2, age=2.001), None, id="heard 2.001 s ago"),
        pytest.param(following("pg2"), None, id="a replica"),
        pytest.param(peer("pg2", statement("pg2")), None, id="nothing known of its PostgreSQL"),
        pytest.param(
            peer("pg2", statement("pg2", snap(system_identifier=OTHER_SYSTEM))), None, id="another cluster's"
        ),
        pytest.param(peer("pg2", statement("pg2", snap(timeline=None))), None, id="its timeline is unknown"),
        pytest.param(
            replace(silent("pg2"), asked_directly=snap(timeline=2)), NEW, id="only its PostgreSQL says so"
        ),
        pytest.param(
            rival("pg2", 2, source=Source.PATRONI, serving=True), NEW, id="a Patroni node that is primary"
        ),
    ],
)
def test_rival(known: Peer, who: Candidate | None) -> None:
    assert rival_of(known, view(peers=[known]), DEFAULT) == who


def test_a_primary_below_the_mark_is_no_rival() -> None:
    known = rival("pg2", 2)
    for mark, who in ((2, NEW), (3, None)):
        evidence = view(snap(timeline=3), [known], memory(term=term(3), high_water={SYSTEM: mark}))
        assert rival_of(known, evidence, DEFAULT) == who


# Signals: which candidate each names. This node is pg1.


def signals_of(peers: list[Peer], remembered: Memory | None = None, **more: Any) -> Signals:
    found = resolve(view(peers=peers, remembered=remembered, **more), DEFAULT)
    assert found is not None
    return found.signals


@pytest.mark.parametrize(
    ("rivals", "who"),
    [
        pytest.param([rival("pg2", 2)], NEW, id="the rival's is higher"),
        pytest.param([rival("pg2", 1)], None, id="the same timeline"),
        pytest.param([rival("pg2", 2), rival("pg3", 2)], None, id="two share the highest"),
        pytest.param([rival("pg2", 2), rival("pg3", 3)], Candidate("pg3", 3), id="the highest of three"),
    ],
)
def test_highest_timeline(rivals: list[Peer], who: Candidate | None) -> None:
    assert signals_of(rivals).timeline == who


STREAMS_HERE, STREAMS_THERE = following("pg3", of="pg1"), following("pg3", of="pg2")


def receiving(**receiver: Any) -> Peer:
    """pg3, with a walreceiver that differs from one that streams from pg1."""
    snapshot = follower("pg1")
    assert snapshot.receiver is not None
    return peer("pg3", statement("pg3", replace(snapshot, receiver=replace(snapshot.receiver, **receiver))))


@pytest.mark.parametrize(
    ("others", "who"),
    [
        pytest.param([], None, id="nobody else"),
        pytest.param([STREAMS_HERE], OLD, id="the only other node streams from here"),
        pytest.param([STREAMS_THERE], NEW, id="the only other node streams from there"),
        pytest.param([following("pg3", age=2.001)], None, id="its evidence is stale"),
        pytest.param([STREAMS_HERE, following("pg4", of="pg2")], None, id="one of two is no majority"),
        pytest.param(
            [STREAMS_HERE, following("pg4"), following("pg5", of="pg2")],
            OLD,
            id="two of three stream from here",
        ),
        pytest.param([STREAMS_HERE, silent("pg4")], None, id="the silent one counts among the two"),
        pytest.param([STREAMS_HERE, following("pg4"), silent("pg5")], OLD, id="two of three, one silent"),
        pytest.param([STREAMS_HERE, witness(), witness("w8")], OLD, id="witnesses do not count"),
        pytest.param([receiving(status="waiting")], None, id="it does not stream"),
        pytest.param([receiving(port=5433)], None, id="it streams from another port"),
        pytest.param([receiving(host="10.0.0.99")], None, id="it streams from nobody we know"),
        pytest.param([receiving(host=None)], None, id="it does not say from where"),
        pytest.param(
            [receiving(host="db-one", addresses=("10.0.0.1",))],
            OLD,
            id="a name that it resolved to our address",
        ),
        pytest.param([receiving(host="db-one")], None, id="a name that nobody resolved"),
        pytest.param(
            [following("pg3", of="pg4"), silent("pg4")], None, id="a cascade votes for no candidate"
        ),
        pytest.param(
            [replace(silent("pg3"), asked_directly=follower("pg2"))],
            NEW,
            id="a silent agent's PostgreSQL votes itself",
        ),
    ],
)
def test_majority_of_followers(others: list[Peer], who: Candidate | None) -> None:
    assert signals_of([rival("pg2", 2), *others]).followers == who


SERVED_THERE = served(2, ago=5.0)


@pytest.mark.parametrize(
    ("remembered", "there", "who"),
    [
        pytest.param(memory(), rival(), OLD, id="only this node serves"),
        pytest.param(memory(served=served(ago=10.0)), rival(), OLD, id="it served 10.0 s ago"),
        pytest.param(memory(served=served(ago=10.001)), rival(), None, id="it served 10.001 s ago"),
        pytest.param(memory(served=served(9, ago=1.0)), rival(), None, id="it served another timeline"),
        pytest.param(memory(), rival(serving=True), None, id="both serve"),
        pytest.param(newly(), rival(serving=True), NEW, id="only the rival serves"),
        pytest.param(newly(), rival(served=SERVED_THERE), NEW, id="the rival served 5 s ago, it says"),
        pytest.param(newly(), rival(served=served(2, ago=10.001)), None, id="the rival served too long ago"),
        pytest.param(
            newly(),
            replace(rival(), heard_serving=SERVED_THERE),
            NEW,
            id="the rival was heard serving 5 s ago",
        ),
        pytest.param(
            newly(),
            replace(rival(), heard_serving=served(1, ago=5.0)),
            None,
            id="the rival was heard serving another timeline",
        ),
        pytest.param(newly(), rival(), None, id="nobody has served"),
    ],
)
def test_serving_lately(remembered: Memory, there: Peer, who: Candidate | None) -> None:
    assert signals_of([there], replace(remembered, high_water={SYSTEM: 1})).incumbent == who


def test_signals_spelled() -> None:
    assert spelled_signals(Signals(NEW, None, OLD)) == (
        "highest timeline names pg2, majority of followers names nobody, serving lately names pg1"
    )


# The clear winner.


@pytest.mark.parametrize(
    ("peers", "remembered", "winner"),
    [
        pytest.param([rival(), STREAMS_HERE], memory(), OLD, id="new old old: promoted by mistake"),
        pytest.param([rival(), STREAMS_THERE], memory(), NEW, id="new new old: switched over"),
        pytest.param([rival()], memory(), None, id="new - old: two nodes"),
        pytest.param([rival(), silent("pg3")], memory(), None, id="new - old: the follower was never heard"),
        pytest.param([rival("pg2", 1)], memory(), OLD, id="- - old: same timeline, only one served"),
        pytest.param([rival("pg2", 1)], newly(), None, id="- - -: same timeline, nobody served"),
        pytest.param(
            [rival("pg2", 1), STREAMS_THERE], newly(), Candidate("pg2", 1), id="- new -: followers decide"
        ),
        pytest.param(
            [rival("pg2", 1), STREAMS_THERE], memory(), None, id="- new old: followers against incumbency"
        ),
        pytest.param([rival()], newly(), NEW, id="new - -: nobody served, the later promotion wins"),
        pytest.param(
            [rival("pg2", 2), rival("pg3", 3)], memory(), None, id="three primaries, one signal each for two"
        ),
        pytest.param(
            [rival("pg2", 2), rival("pg3", 2)], memory(), OLD, id="two promoted in one instant beside the old"
        ),
        pytest.param(
            [rival("pg2", 2, source=Source.PATRONI, serving=True), STREAMS_THERE],
            newly(),
            NEW,
            id="a Patroni node that serves",
        ),
    ],
)
def test_winner(peers: list[Peer], remembered: Memory, winner: Candidate | None) -> None:
    found = resolve(view(peers=peers, remembered=remembered), DEFAULT)
    assert found is not None
    assert found.winner == winner


def test_demote_all_lets_nobody_win() -> None:
    found = resolve(view(peers=[rival(), STREAMS_HERE]), policy(demote_all=True))
    assert found is not None
    assert found.winner is None


@pytest.mark.parametrize(
    ("peers", "begun"),
    [
        pytest.param([rival(age=0.999)], True, id="asked after this node became primary"),
        pytest.param([rival(age=1.001)], False, id="asked before: the old primary of a failover"),
        pytest.param(
            [replace(silent("pg2"), asked_directly=snap(timeline=2, age=0.999))],
            True,
            id="its PostgreSQL, after",
        ),
        pytest.param(
            [replace(silent("pg2"), asked_directly=snap(timeline=2, age=1.001))],
            False,
            id="its PostgreSQL, before",
        ),
    ],
)
def test_a_conflict_begins_with_evidence_of_the_same_time(peers: list[Peer], begun: bool) -> None:
    found = resolve(view(snap(timeline=2), peers, newly(2, since=1.0, mark=1)), DEFAULT)
    assert (found is not None) == begun


# What stays decided, and what does not.


def decided(
    winner: Candidate | None, signals: Signals, rivals: dict[Candidate, float] | None = None
) -> Memory:
    """A conflict that was decided; a rival was last seen as primary so many seconds ago."""
    known = {NEW: 0.3} if rivals is None else rivals
    found = Conflict(tuple(Rival(who, NOW - ago) for who, ago in known.items()), signals, winner)
    return memory(conflict=found)


WON = decided(OLD, Signals(NEW, OLD, OLD))
LOST = decided(NEW, Signals(NEW, NEW, OLD))
TIED = decided(None, Signals(NEW, None, OLD))


def absent(ago: float = 5.0, **more: Any) -> Peer:
    """pg2, whose agent fell silent."""
    return replace(rival(age=ago), silent_since=NOW - ago + 0.5, **more)


def down(reason: Reason = Reason.POSTGRES_DOWN) -> Peer:
    """pg2, whose agent says that its PostgreSQL cannot be asked."""
    return peer("pg2", statement("pg2", reason=reason))


def gone(remembered: Memory, ago: float) -> Memory:
    """The same conflict, its rival last seen as primary so many seconds ago."""
    assert remembered.conflict is not None
    rivals = tuple(replace(known, primary_at=NOW - ago) for known in remembered.conflict.rivals)
    return replace(remembered, conflict=replace(remembered.conflict, rivals=rivals))


@pytest.mark.parametrize(
    ("remembered", "peers", "winner"),
    [
        pytest.param(WON, [rival(yields_to=OLD), silent("pg3")], OLD, id="the follower's agent dies"),
        pytest.param(
            WON, [rival(yields_to=OLD), STREAMS_THERE], NEW, id="a signal turns: the follower was moved"
        ),
        pytest.param(
            replace(WON, served=served(ago=60)),
            [rival(yields_to=OLD), silent("pg3")],
            OLD,
            id="this node has not served for a while",
        ),
        pytest.param(
            LOST, [rival(), silent("pg3")], NEW, id="lost stays lost when the follower's agent dies"
        ),
        pytest.param(TIED, [rival(), STREAMS_HERE], OLD, id="a tie ends when a follower is heard"),
        pytest.param(TIED, [rival()], None, id="a tie stays one"),
        pytest.param(
            WON, [rival("pg2", 3), silent("pg3")], None, id="the rival came back on another timeline"
        ),
    ],
)
def test_a_signal_that_becomes_unknown_keeps_speaking(
    remembered: Memory, peers: list[Peer], winner: Candidate | None
) -> None:
    found = resolve(view(peers=peers, remembered=remembered), DEFAULT)
    assert found is not None
    assert found.winner == winner


@pytest.mark.parametrize(
    ("remembered", "there", "stays"),
    [
        # won: a restart of the rival forgets nothing
        pytest.param(gone(WON, 60), absent(60), True, id="won, and the rival is silent"),
        pytest.param(gone(WON, 60), silent("pg2"), True, id="won, and this agent restarted since"),
        pytest.param(gone(WON, 60), down(), True, id="won, and the rival's PostgreSQL is down"),
        pytest.param(WON, following("pg2"), False, id="won, and the rival is a replica now"),
        # lost: the winner may come back within takeover_after
        pytest.param(gone(LOST, 9.999), absent(9.999), True, id="lost, the winner silent for 9.999 s"),
        pytest.param(gone(LOST, 10.0), absent(10.0), False, id="lost, the winner silent for 10.0 s"),
        pytest.param(gone(LOST, 9.999), down(), True, id="lost, the winner down for 9.999 s"),
        pytest.param(gone(LOST, 10.0), down(), False, id="lost, the winner down for 10.0 s"),
        pytest.param(gone(LOST, 9.999), following("pg2"), True, id="lost, the winner a replica for 9.999 s"),
        # nobody won: only evidence ends it
        pytest.param(gone(TIED, 3600), absent(3600), True, id="diverged, the rival silent for an hour"),
        pytest.param(gone(TIED, 3600), silent("pg2"), True, id="diverged, and this agent restarted since"),
        pytest.param(gone(TIED, 0.3), following("pg2"), False, id="diverged, the rival is a replica now"),
        pytest.param(
            gone(TIED, 0.3),
            absent(asked_directly=follower("pg1")),
            False,
            id="diverged, the silent rival's PostgreSQL says that it is a replica",
        ),
        pytest.param(gone(TIED, 2.999), down(), True, id="diverged, the rival's PostgreSQL restarts"),
        pytest.param(gone(TIED, 3.0), down(), False, id="diverged, the rival down for 3.0 s: no restart"),
        pytest.param(
            gone(TIED, 3600),
            down(Reason.POSTGRES_STALE),
            True,
            id="diverged, the rival's PostgreSQL hangs: unknown is not no",
        ),
        pytest.param(
            gone(TIED, 3600),
            down(Reason.AUTH_FAILED),
            True,
            id="diverged, the rival's agent can no longer log in",
        ),
        pytest.param(
            gone(TIED, 3600),
            down(Reason.STARTING_UP),
            True,
            id="diverged, the rival's agent knows nothing yet",
        ),
        pytest.param(
            gone(TIED, 3600),
            down(Reason.POSTGRES_STARTING),
            True,
            id="diverged, the rival's PostgreSQL starts",
        ),
    ],
)
def test_how_long_an_absent_rival_counts(remembered: Memory, there: Peer, stays: bool) -> None:
    found = resolve(view(peers=[there, silent("pg3")], remembered=remembered), DEFAULT)
    assert remembered.conflict is not None
    if stays:
        assert found is not None
        assert (found.winner, found.rivals) == (remembered.conflict.winner, remembered.conflict.rivals)
    else:
        assert found is None


def test_a_conflict_goes_on_when_this_node_begins_another_term() -> None:
    """Its evidence of the rival is older than the term, and must not end what was decided."""
    began_again = replace(WON, term=term(since=0.1))
    found = resolve(view(peers=[rival(age=0.3), silent("pg3")], remembered=began_again), DEFAULT)
    assert found is not None
    assert found.winner == OLD


def test_a_decided_rival_that_comes_back_meets_the_same_decision() -> None:
    """The follower's agent is dead and the rival's agent restarts: the rightful primary is undisturbed."""
    while_away = view(peers=[absent(), silent("pg3")], remembered=gone(WON, 5))
    kept = resolve(while_away, DEFAULT)
    back = view(
        peers=[rival(yields_to=OLD), silent("pg3")], remembered=replace(while_away.memory, conflict=kept)
    )
    found = resolve(back, DEFAULT)
    assert found is not None
    assert found.winner == OLD


def test_a_decision_for_this_node_does_not_bind_it_on_another_timeline() -> None:
    evidence = view(
        snap(timeline=3),
        [absent(), following("pg3")],
        replace(gone(WON, 5), term=term(3), high_water={SYSTEM: 1}),
    )
    assert resolve(evidence, DEFAULT) is None


def test_a_rival_removed_from_the_configuration_is_none() -> None:
    assert resolve(view(peers=[following("pg3")], remembered=TIED), DEFAULT) is None


def test_a_rival_that_dns_does_not_name_is_not_removed() -> None:
    discovered = replace(silent("10.0.0.2:8008"), discovered=True)
    evidence = view(peers=[discovered], remembered=TIED)
    assert resolve(evidence, policy(expected_members=2)) is not None
    assert resolve(replace(evidence, peers=()), policy(expected_members=2)) is not None


def test_a_conflict_outlives_the_wait_for_the_first_snapshot() -> None:
    assert resolve(view(remembered=replace(TIED, term=None)), DEFAULT) is TIED.conflict


@pytest.mark.parametrize(
    ("remembered", "to"),
    [
        pytest.param(WON, None, id="won"),
        pytest.param(LOST, NEW, id="lost"),
        pytest.param(TIED, None, id="diverged"),
        pytest.param(memory(), None, id="no conflict"),
        pytest.param(replace(LOST, term=None), None, id="no primary any more"),
    ],
)
def test_lost_to(remembered: Memory, to: Candidate | None) -> None:
    assert lost_to(view(remembered=remembered)) == to


# Whom a replica streams from.


@pytest.mark.parametrize(
    ("snapshot", "who"),
    [
        pytest.param(None, None, id="nothing known"),
        pytest.param(snap(), None, id="a primary"),
        pytest.param(follower(None), None, id="no receiver"),
        pytest.param(follower("pg1"), "pg1", id="from an address"),
        pytest.param(
            follower(receiver=Receiver("streaming", host="FE80::0001", port=5432)),
            "pg6",
            id="IPv6, respelled",
        ),
    ],
)
def test_upstream(snapshot: Snapshot | None, who: str | None) -> None:
    book = addresses("pg1", "pg2") | {"pg6": frozenset({("fe80::1", 5432)})}
    assert upstream(snapshot, view(addresses=book)) == who


def test_conflict_is_the_same_for_every_member() -> None:
    """The same three primaries seen by each of them: one winner."""
    shown = {"pg1": (1, True), "pg2": (2, False), "pg3": (2, False)}
    winners = set()
    for name, (timeline, serves) in shown.items():
        others = [rival(one, at, serving=on) for one, (at, on) in shown.items() if one != name]
        mine = memory(term=term(timeline)) if serves else newly(timeline, mark=1)
        evidence: View = view(snap(timeline=timeline), others, mine, name=name)
        found = resolve(evidence, DEFAULT)
        assert found is not None
        winners.add(found.winner)
    assert winners == {Candidate("pg1", 1)}
