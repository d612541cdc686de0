"""When the bridge acts on pgpool, when it waits, and what it never does."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthagent.core.model import Role
from healthagent.pgpool.model import Action, Backend, Kind, LiveInfo, Observed, Says, Status, Told
from healthagent.pgpool.reconcile import Memory, Policy, Round, noted, reconcile

POLICY = Policy(fall=2, rise=2, settle=3.0, hold=5.0, per_minute=3, retry=60.0)
ROLES = {
    Says.PRIMARY: Role.PRIMARY,
    Says.REFUSED: Role.PRIMARY,
    Says.REPLICA: Role.REPLICA,
    Says.UNFIT_REPLICA: Role.REPLICA,
}


def node(
    index: int,
    says: Says,
    status: Status = Status.UP,
    *,
    writes: bool = False,
    live: Role | None = None,
    can_log_in: bool | None = None,
) -> Observed:
    """One backend: what its agent says, what pgpool does with it (`writes`: it is pgpool's primary)."""
    return Observed(
        f"pg{index}",
        Told(says, ROLES.get(says), "diverged"),
        Backend(index, "127.0.0.1", 5432 + index, status, writes),
        LiveInfo(can_log_in, live, 0.0),
    )


def polls(cluster: Sequence[Observed], times: int, memory: Memory | None = None, start: float = 0.0) -> Round:
    """The same observation so many polls in a row, one each second; actions are sent at the last only."""
    done = Round((), memory or {}, ())
    for number in range(times):
        done = reconcile(cluster, done.memory, start + number, POLICY)
    return done


def asked(done: Round) -> list[tuple[Kind, int]]:
    return [(action.kind, action.index) for action in done.actions]


DETACH, ATTACH, PROMOTE = Kind.DETACH, Kind.ATTACH, Kind.PROMOTE
PRIMARY, REPLICA, REFUSED = Says.PRIMARY, Says.REPLICA, Says.REFUSED
UNFIT, DOWN, UNDECIDED, UNKNOWN = Says.UNFIT_REPLICA, Says.DOWN, Says.UNDECIDED, Says.UNKNOWN
OFF = Status.DOWN
HEALTHY = [node(0, PRIMARY, writes=True), node(1, REPLICA), node(2, REPLICA)]


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        pytest.param(HEALTHY, [], id="pgpool agrees with the agents: nothing"),
        pytest.param(
            [node(0, REFUSED, writes=True), node(1, REFUSED), node(2, REPLICA)],
            [(DETACH, 1), (DETACH, 0)],
            id="split brain, nobody won: both, pgpool's primary last",
        ),
        pytest.param(
            [node(0, PRIMARY, writes=True), node(1, REFUSED), node(2, REPLICA)],
            [(DETACH, 1)],
            id="split brain, pgpool's primary won: the false one",
        ),
        pytest.param(
            [node(0, REFUSED, writes=True), node(1, PRIMARY), node(2, REPLICA)],
            [(DETACH, 0)],
            id="split brain, the other won: detach the old, pgpool then finds the new by itself",
        ),
        pytest.param(
            [node(0, PRIMARY, writes=True), node(1, PRIMARY), node(2, REPLICA)],
            [(DETACH, 1), (DETACH, 0)],
            id="two agents permit writes: both",
        ),
        pytest.param(
            [node(0, PRIMARY, OFF), node(1, PRIMARY, OFF), node(2, REPLICA)],
            [],
            id="two agents permit writes, both detached: neither is chosen",
        ),
        pytest.param(
            [node(0, REPLICA, writes=True), node(1, PRIMARY), node(2, REPLICA)],
            [(PROMOTE, 1)],
            id="switchover that pgpool did not notice: promote",
        ),
        pytest.param(
            [node(0, UNFIT, writes=True), node(1, PRIMARY), node(2, REPLICA)],
            [(PROMOTE, 1)],
            id="switchover, the old primary lags as a replica: promote",
        ),
        pytest.param(
            [node(0, DOWN, writes=True), node(1, PRIMARY), node(2, REPLICA)],
            [(PROMOTE, 1)],
            id="the old primary's agent says that PostgreSQL is down: promote",
        ),
        pytest.param(
            [node(0, UNDECIDED, writes=True), node(1, PRIMARY), node(2, REPLICA)],
            [],
            id="the old primary's agent has just started: wait",
        ),
        pytest.param(
            [node(0, UNKNOWN, writes=True), node(1, PRIMARY), node(2, REPLICA)],
            [],
            id="the old primary's agent is silent: pgpool's health check decides",
        ),
        pytest.param(
            [node(0, DOWN, OFF), node(1, PRIMARY), node(2, REPLICA)],
            [(PROMOTE, 1)],
            id="pgpool has no primary: promote",
        ),
        pytest.param(
            [node(0, PRIMARY, OFF), node(1, REPLICA, writes=True)],
            [(ATTACH, 0)],
            id="the primary is down in pgpool: attach it first",
        ),
        pytest.param(
            [node(0, PRIMARY, OFF), node(1, REPLICA, OFF)],
            [(ATTACH, 0)],
            id="all are down in pgpool: the primary first",
        ),
        pytest.param(
            [node(0, REPLICA, OFF), node(1, PRIMARY, writes=True), node(2, REPLICA, OFF)],
            [(ATTACH, 0), (ATTACH, 2)],
            id="replicas that the promotion put down: attach them",
        ),
        pytest.param(
            [node(0, DOWN, OFF), node(1, REPLICA, OFF), node(2, REPLICA)],
            [(ATTACH, 1)],
            id="no primary anywhere: reads go on",
        ),
        pytest.param(
            [node(0, PRIMARY, writes=True), node(1, UNFIT), node(2, UNFIT, OFF)],
            [],
            id="a lagging replica is neither detached nor attached",
        ),
        pytest.param(
            [node(0, DOWN, writes=True), node(1, REPLICA), node(2, REPLICA)],
            [],
            id="the primary died and nobody was promoted: nothing to promote",
        ),
        pytest.param(
            [node(0, UNKNOWN, writes=True), node(1, UNKNOWN), node(2, UNKNOWN, OFF)],
            [],
            id="all agents are silent: nothing",
        ),
        pytest.param(
            [node(0, UNDECIDED, writes=True), node(1, UNDECIDED), node(2, UNDECIDED, OFF)],
            [],
            id="all agents have just started: nothing",
        ),
        pytest.param(
            [HEALTHY[0], node(1, REPLICA, Status.QUARANTINE), node(2, REPLICA, Status.UNUSED)],
            [],
            id="quarantine and unused are not ours",
        ),
        pytest.param(
            [node(0, PRIMARY, OFF, can_log_in=False), node(1, REPLICA, OFF, can_log_in=True)],
            [(ATTACH, 1)],
            id="pgpool cannot log in: it would put it down again, and it holds up nobody",
        ),
    ],
)  # fmt: skip
def test_what_is_asked_of_pgpool(cluster: list[Observed], expected: list[tuple[Kind, int]]) -> None:
    assert asked(polls(cluster, 1)) == [], "one poll is not enough for anything"
    assert asked(polls(cluster, 2)) == expected


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        pytest.param(Role.PRIMARY, [(PROMOTE, 1)], id="pgpool sees a primary too"),
        pytest.param(None, [(PROMOTE, 1)], id="pgpool could not look"),
        pytest.param(Role.REPLICA, [], id="pgpool sees a replica: perhaps another node's agent"),
    ],
)
def test_a_contradicted_agent_is_unknown(live: Role | None, expected: list[tuple[Kind, int]]) -> None:
    cluster = [node(0, REPLICA, writes=True), node(1, PRIMARY, live=live)]
    done = polls(cluster, 3)
    assert asked(done) == expected
    assert any("right backend" in alarm for alarm in done.alarms) == (not expected)


def test_a_word_must_be_said_in_a_row() -> None:
    split = [node(0, REFUSED, writes=True), node(1, REPLICA)]
    silent = [node(0, UNKNOWN, writes=True), node(1, REPLICA)]
    memory = polls(silent, 1, polls(split, 1).memory).memory
    assert asked(polls(split, 1, memory)) == []
    assert asked(polls(split, 2, memory)) == [(DETACH, 0)]


def test_without_fence_nothing_is_detached() -> None:
    policy = replace(POLICY, fence=False)
    split = [node(0, REFUSED, writes=True), node(1, REFUSED), node(2, REPLICA)]
    memory = reconcile(split, {}, 0, policy).memory
    assert reconcile(split, memory, 1, policy).actions == ()


def accepted(done: Round, now: float) -> Memory:
    memory = done.memory
    for action in done.actions:
        memory = noted(memory, action, now, POLICY)
    return memory


def test_a_request_is_not_repeated_before_it_is_settled() -> None:
    cluster = [node(0, REPLICA, OFF), node(1, PRIMARY, writes=True)]
    memory = accepted(polls(cluster, 2), 1.0)
    assert asked(reconcile(cluster, memory, 3.9, POLICY)) == [], "2.9 s: it may be queued"
    assert asked(reconcile(cluster, memory, 4.0, POLICY)) == [(ATTACH, 0)], "3 s: it was lost"


def test_no_attach_while_a_promotion_is_under_way() -> None:
    cluster = [node(0, REPLICA, writes=True), node(1, PRIMARY), node(2, REPLICA, OFF)]
    memory = accepted(polls(cluster, 2), 1.0)
    assert asked(reconcile(cluster, memory, 2.0, POLICY)) == []
    promoted = [node(0, REPLICA, OFF), node(1, PRIMARY, writes=True), node(2, REPLICA, OFF)]
    assert asked(reconcile(promoted, memory, 2.0, POLICY)) == [(ATTACH, 0), (ATTACH, 2)]


def test_a_fence_does_not_wait_for_an_attach_to_settle() -> None:
    memory = accepted(polls([node(0, PRIMARY, OFF), node(1, REPLICA)], 2), 1.0)
    refused = [node(0, REFUSED, OFF), node(1, REPLICA)]
    memory = reconcile(refused, memory, 1.5, POLICY).memory
    assert asked(reconcile([node(0, REFUSED, writes=True), node(1, REPLICA)], memory, 2.0, POLICY)) == [
        (DETACH, 0)
    ]


def test_what_we_detached_is_held_before_it_is_attached() -> None:
    memory = accepted(polls([node(0, REFUSED, writes=True)], 2), 10.0)
    back = [node(0, PRIMARY, OFF)]
    memory = polls(back, 2, memory, start=11.0).memory
    assert asked(reconcile(back, memory, 14.9, POLICY)) == []
    assert asked(reconcile(back, memory, 15.0, POLICY)) == [(ATTACH, 0)]


def test_what_pgpool_detached_is_attached_without_hold() -> None:
    memory = polls([node(0, PRIMARY, writes=True)], 2).memory
    assert asked(reconcile([node(0, PRIMARY, OFF)], memory, 3.0, POLICY)) == [(ATTACH, 0)]


def test_attaches_are_rationed_and_detaches_are_not() -> None:
    """An agent that flaps for ten minutes: 3 attaches a minute and backend, and every refusal is obeyed."""
    memory: Memory = {}
    status, actions = Status.UP, []
    for now in range(600):
        says = PRIMARY if now // 4 % 2 else REFUSED
        done = reconcile([node(0, says, status, writes=status is Status.UP)], memory, float(now), POLICY)
        memory = accepted(done, float(now))
        actions += [(now, action.kind) for action in done.actions]
        status = {DETACH: OFF, ATTACH: Status.UP}[done.actions[-1].kind] if done.actions else status
        assert not (says is REFUSED and now % 4 >= 1 and status is Status.UP)
    attaches = [now for now, kind in actions if kind is ATTACH]
    assert 20 <= len(attaches) <= 30
    assert all(sum(start <= at < start + 60 for at in attaches) <= 3 for start in range(600))


def test_rationing_is_reported() -> None:
    memory = polls([node(0, PRIMARY, OFF)], 2).memory
    for now in (2.0, 3.0, 4.0):
        memory = noted(memory, Action(ATTACH, 0, ""), now, POLICY)
        memory = reconcile([node(0, PRIMARY)], memory, now, POLICY).memory
    limited = reconcile([node(0, PRIMARY, OFF)], memory, 5.0, POLICY)
    assert (asked(limited), limited.alarms) == (
        [], ("pg0 (backend 0): not attached, because it was 3 times in the last minute",)
    )  # fmt: skip
    assert asked(reconcile([node(0, PRIMARY, OFF)], memory, 61.9, POLICY)) == []
    assert asked(reconcile([node(0, PRIMARY, OFF)], memory, 62.0, POLICY)) == [(ATTACH, 0)]


def test_a_refused_request_is_reported_and_not_looped_on() -> None:
    split = [node(0, REFUSED, writes=True), node(1, REPLICA)]
    first = polls(split, 2)
    memory = noted(first.memory, first.actions[0], 1.0, POLICY, "failover is disallowed on the node")
    waiting = reconcile(split, memory, 60.9, POLICY)
    assert asked(waiting) == []
    assert waiting.alarms == (
        "pg0 (backend 0): pgpool does not detach it: failover is disallowed on the node",
    )
    assert asked(reconcile(split, memory, 61.0, POLICY)) == [(DETACH, 0)]


def test_a_request_without_effect_is_repeated_once_and_then_reported() -> None:
    split = [node(0, REFUSED, writes=True), node(1, REPLICA)]
    memory = accepted(polls(split, 2), 1.0)
    assert asked(reconcile(split, memory, 3.9, POLICY)) == [], "2.9 s: it may be queued"
    again = reconcile(split, memory, 4.0, POLICY)
    assert (asked(again), again.alarms) == ([(DETACH, 0)], ())
    stuck = reconcile(split, accepted(again, 4.0), 7.0, POLICY)
    assert asked(stuck) == []
    assert stuck.alarms == (
        "pg0 (backend 0): pgpool does not detach it: it was accepted 2 times and had no effect within 3 s",
    )
    healed = reconcile([node(0, REFUSED, OFF), node(1, REPLICA)], stuck.memory, 8.0, POLICY)
    assert healed.alarms == ()


def test_a_primary_that_pgpool_does_not_detach_is_replaced_by_the_agents_primary() -> None:
    split = [node(0, REFUSED, writes=True), node(1, PRIMARY)]
    first = polls(split, 2)
    memory = noted(first.memory, first.actions[0], 1.0, POLICY, "failover is disallowed on the node")
    assert asked(reconcile(split, memory, 2.0, POLICY)) == [(PROMOTE, 1)]


def test_two_permissions_are_an_alarm() -> None:
    done = polls([node(0, PRIMARY, OFF), node(1, PRIMARY, OFF)], 1)
    assert done.alarms == (
        "pg0 (backend 0) and pg1 (backend 1) all answer 200 on /primary; none of them is chosen",
    )


words = st.sampled_from(list(Says))
moods = st.sampled_from(["obeys", "refuses", "forgets"])
steps = st.lists(
    st.tuples(st.tuples(words, words, words), moods, st.floats(0.1, 20)), min_size=1, max_size=25
)


@given(steps)
def test_whatever_agents_and_pgpool_do(run: list[tuple[tuple[Says, Says, Says], str, float]]) -> None:
    """pgpool obeys, refuses or forgets at random, and its own mind stays where the actions put it."""
    memory: Memory = {}
    status = [Status.UP] * 3
    writes: int | None = 0
    now, history = 0.0, []
    for said, mood, pause in run:
        now += pause
        history.append(said)
        cluster = [node(i, said[i], status[i], writes=i == writes) for i in range(3)]
        done = reconcile(cluster, memory, now, POLICY)
        memory = done.memory
        for action in done.actions:
            last_two = {word[action.index] for word in history[-2:]}
            if action.kind is DETACH:
                assert len(last_two) == 1, "detached before it was said twice"
                assert last_two <= {REFUSED, PRIMARY}, "detached what is not refused"
                assert last_two == {REFUSED} or said.count(PRIMARY) > 1
            else:
                assert last_two <= {PRIMARY, REPLICA}, "permitted without the agent's permission"
                assert len(history) > 1
            if action.kind is PROMOTE:
                assert last_two == {PRIMARY}
                assert said.count(PRIMARY) == 1, "promoted while two permit writes"
            memory = noted(memory, action, now, POLICY, "no" if mood == "refuses" else None)
            if mood == "obeys":
                if action.kind is PROMOTE:
                    status, writes = [OFF, OFF, OFF], action.index
                status[action.index] = OFF if action.kind is DETACH else Status.UP
                if action.kind is DETACH and writes == action.index:
                    writes = None
        detached = [action.index for action in done.actions if action.kind is DETACH]
        assert len({action.kind for action in done.actions}) <= 1
        assert 0 not in detached[:-1] or writes != 0, "pgpool's primary goes last"
