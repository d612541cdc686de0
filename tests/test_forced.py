"""An operator's word on /primary: what it sets aside, what it never does, and when it is over."""

from dataclasses import replace

import pytest

from healthagent.core.forced import kept_override, objection
from healthagent.core.memory import remember, serve
from healthagent.core.model import Reason, Role
from healthagent.core.peer import Candidate, Peer
from healthagent.core.primary import decide_by_rules, decide_primary
from healthagent.core.term import is_newly, term_of
from healthagent.core.view import Conflict, Memory, Override, Rival, Signals, View
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

ON = Override(True, NOW - 100, NOW + 60, 1, "alice", "the other site burns")
OFF = Override(False, NOW - 100, NOW + 60, None, "bob")
HERE, THERE = Candidate("pg1", 1), Candidate("pg2", 2)
DEFAULT, DEMOTE = policy(), policy(demote_isolated=True)
LOST = Conflict((Rival(THERE, NOW - 0.3),), Signals(THERE, THERE, HERE), THERE)
NOBODY_WON = replace(LOST, winner=None)


def lonely(remembered: Memory | None = None) -> View:
    """Two silent peers that were asked since this node is primary."""
    return view(peers=[silent("pg2"), silent("pg3")], remembered=remembered or memory())


def with_override(made: View, override: Override | None) -> View:
    return replace(made, memory=replace(made.memory, override=override))


def serving(name: str = "pg2", age: float = 0.3) -> Peer:
    return rival(name, 1, serving=True, age=age)


SET_ASIDE = [
    pytest.param(view(remembered=memory(high_water={SYSTEM: 2})), "stale_timeline", id="5 a newer timeline"),
    pytest.param(lonely(newly(since=60)), "isolated_at_start", id="8 newly primary, nobody heard"),
    pytest.param(
        view(peers=[silent()], remembered=newly(since=9)), "start_alone", id="9 the only peer is silent"
    ),
    pytest.param(
        view(peers=[rival()], remembered=memory(conflict=LOST, serving=False)), "lost_conflict", id="10 lost"
    ),
    pytest.param(
        view(peers=[rival()], remembered=memory(conflict=NOBODY_WON, serving=False)),
        "diverged",
        id="10 diverged",
    ),
    pytest.param(
        view(peers=[rival()], remembered=memory(serving=False)),
        "rival_draining",
        id="11 a rival that does not yield",
    ),
]


@pytest.mark.parametrize(("made", "reason"), SET_ASIDE)
def test_what_an_operator_sets_aside(made: View, reason: str) -> None:
    assert decide_primary(made, DEFAULT).reason == reason
    found = decide_primary(with_override(made, ON), DEFAULT)
    assert (found.ok, found.reason) == (True, Reason.FORCED_ON)
    assert found.detail == "primary on timeline 1, forced by alice (the other site burns)"
    assert decide_by_rules(with_override(made, ON), DEFAULT).reason == reason


def test_isolation_is_set_aside() -> None:
    made = lonely()
    assert decide_primary(made, DEMOTE).reason == "isolated"
    assert decide_primary(with_override(made, ON), DEMOTE).reason == "forced_on"


NEVER = [
    pytest.param(replace(view(), stopping=True), "stopping", id="1 stopping"),
    pytest.param(view(local=local(None, failure=failure())), "postgres_down", id="2 down"),
    pytest.param(view(snap(age=2.001)), "postgres_stale", id="2 evidence that is too old"),
    pytest.param(
        view(
            local=local(snap(), new_connection_failure=failure(), new_connection_failures=2),
        ),
        "no_new_connections",
        id="2 nobody else gets in",
    ),
    pytest.param(view(follower("pg2")), "not_primary", id="3 a replica"),
    pytest.param(view(snap(read_only=True)), "read_only", id="4 read-only"),
    pytest.param(view(snap(timeline=None)), "privilege_missing", id="4 its timeline is unknown"),
    pytest.param(
        view(peers=[peer("pg2", statement("pg2", snap(system_identifier=OTHER_SYSTEM)))]),
        "system_id_mismatch",
        id="6 another cluster",
    ),
    pytest.param(
        view(peers=[silent(called=3.0)], remembered=newly(since=2)),
        "start_gate",
        id="7 not every peer was asked",
    ),
    pytest.param(
        view(peers=[serving()], remembered=memory(serving=False)), "rival_draining", id="11 another serves"
    ),
    pytest.param(
        view(
            peers=[peer("pg2", statement("pg2", stopped_serving_at=NOW - 2.9))],
            remembered=memory(serving=False),
        ),
        "rival_draining",
        id="11 clients are still leaving another",
    ),
    pytest.param(
        view(peers=[replace(serving(age=2.5), silent_since=NOW - 2.9)], remembered=memory(serving=False)),
        "rival_silent",
        id="12 who served fell silent just now",
    ),
    pytest.param(
        view(remembered=memory(high_water={SYSTEM: 1}, saved_high_water={})),
        "state_unsaved",
        id="14 not on disk",
    ),
]


@pytest.mark.parametrize(("made", "reason"), NEVER)
def test_what_no_operator_sets_aside(made: View, reason: str) -> None:
    found = decide_primary(with_override(made, ON), DEFAULT)
    assert (found.ok, found.reason) == (False, reason)


def test_a_pinned_system_identifier_is_not_set_aside() -> None:
    found = decide_primary(with_override(view(), ON), policy(system_identifier=OTHER_SYSTEM))
    assert found.reason == "system_id_mismatch"


@pytest.mark.parametrize(
    ("since", "called", "reason"),
    [
        pytest.param(2.31, 0.3, "forced_on", id="a question begun when our word was void"),
        pytest.param(2.29, 0.3, "start_gate", id="begun before: a peer may serve by our word still"),
        pytest.param(0.0, 0.3, "start_gate", id="just now"),
    ],
)
def test_first_nobody_may_serve_by_our_word(since: float, called: float, reason: str) -> None:
    """A rival that this node yielded to holds its word for peer.max_age (2 s), and not longer."""
    peers = [peer("pg2", statement("pg2", snap(timeline=2)), called=called)]
    made = view(peers=peers, remembered=memory(conflict=LOST, serving=False))
    assert decide_primary(with_override(made, replace(ON, since=NOW - since)), DEFAULT).reason == reason


def test_who_is_forced_on_yields_to_nobody_until_that_is_over() -> None:
    made = view(peers=[rival()], remembered=memory(conflict=LOST, serving=False, yields_to=THERE))
    kept = remember(with_override(made, ON), DEFAULT)
    assert (kept.yields_to, kept.yielded_until) == (None, NOW)
    assert remember(replace(made, memory=replace(kept, override=None)), DEFAULT).yields_to == THERE


@pytest.mark.parametrize(
    ("made", "override", "stays"),
    [
        pytest.param(view(), ON, True, id="in force"),
        pytest.param(view(), replace(ON, until=NOW), False, id="its time is up"),
        pytest.param(view(), replace(OFF, until=NOW), False, id="off: its time is up"),
        pytest.param(view(follower("pg2")), ON, False, id="a replica: it is not for the next promotion"),
        pytest.param(view(follower("pg2")), OFF, True, id="off, and a replica"),
        pytest.param(
            view(snap(timeline=2), remembered=memory(term=term(2))), ON, False, id="promoted again since"
        ),
        pytest.param(view(local=local(None, failure=failure())), ON, True, id="PostgreSQL restarts"),
        pytest.param(view(peers=[serving()]), ON, False, id="another is heard serving"),
        pytest.param(view(peers=[serving(age=2.001)]), ON, True, id="another served, and is not heard"),
        pytest.param(view(peers=[serving()]), OFF, True, id="off, and another serves"),
    ],
)
def test_when_it_is_over(made: View, override: Override, stays: bool) -> None:
    made = with_override(made, override)
    assert (kept_override(made, DEFAULT) is not None) == stays
    assert (remember(made, DEFAULT).override is not None) == stays


def test_over_to_the_moment_whoever_remembers() -> None:
    stale = view(remembered=memory(high_water={SYSTEM: 2}))
    assert decide_primary(with_override(stale, replace(ON, until=NOW + 0.001)), DEFAULT).ok
    assert not decide_primary(with_override(stale, replace(ON, until=NOW)), DEFAULT).ok
    assert not decide_primary(with_override(view(), replace(OFF, until=NOW + 0.001)), DEFAULT).ok
    assert decide_primary(with_override(view(), replace(OFF, until=NOW)), DEFAULT).ok


def test_on_another_timeline_it_permits_nothing() -> None:
    stale = view(remembered=memory(high_water={SYSTEM: 3}))
    assert decide_primary(with_override(stale, replace(ON, timeline=2)), DEFAULT).reason == "stale_timeline"


def test_off_takes_away_a_permission_and_leaves_every_other_reason() -> None:
    found = decide_primary(with_override(view(), OFF), DEFAULT)
    assert (found.ok, found.reason) == (False, Reason.FORCED_OFF)
    left = f"{OFF.until - NOW:.0f}"
    assert found.detail == f"bob took writes away from this node, for another {left} s"
    stale = view(remembered=memory(high_water={SYSTEM: 2}))
    assert decide_primary(with_override(stale, OFF), DEFAULT).reason == "stale_timeline"


def test_what_the_rules_permit_needs_no_word() -> None:
    assert decide_primary(with_override(view(), ON), DEFAULT).reason == "primary"


def test_service_by_force_is_not_the_start_gate() -> None:
    """When the word is over, who was isolated at the start is so again; a new term does not profit either."""
    made = with_override(lonely(newly(since=60)), ON)
    after = serve(made.memory, decide_primary(made, DEFAULT), made, DEFAULT)
    assert after.served == replace(served(ago=0), forced=True)
    made = replace(made, memory=replace(after, override=None))
    assert is_newly(made)
    assert decide_primary(made, DEFAULT).reason == "isolated_at_start"
    broken = replace(made, memory=replace(after, term=term(broken=True)))
    found = term_of(broken, DEFAULT)
    assert found is not None
    assert found.newly


@pytest.mark.parametrize(
    ("made", "why"),
    [
        pytest.param(view(), None, id="a primary"),
        pytest.param(view(follower("pg2")), "no primary here", id="a replica"),
        pytest.param(view(snap(age=2.001)), "by fresh evidence", id="evidence that is too old"),
        pytest.param(view(local=local(None)), "no primary here", id="nothing is known"),
        pytest.param(view(peers=[serving(), following("pg3")]), "pg2 answers 200", id="another serves"),
        pytest.param(view(peers=[serving(age=2.001)]), None, id="another served, and is not heard"),
    ],
)
def test_when_it_is_refused_at_once(made: View, why: str | None) -> None:
    found = objection(made, DEFAULT)
    assert found is None if why is None else found is not None and why in found
    assert made.local.snapshot is None or made.local.snapshot.role in Role
