"""Safety of /primary as properties: over any evidence, not over twenty examples."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from healthagent.board import Board, Identity
from healthagent.core.model import Local, Role
from healthagent.core.peer import Alarm, Candidate, Peer, Served
from healthagent.core.primary import decide_primary
from healthagent.core.view import Conflict, Maintenance, Rival, Signals, View
from healthagent.wire import decode, encode, statement_of
from tests.builders import (
    NOW,
    OTHER_SYSTEM,
    SYSTEM,
    address,
    addresses,
    failure,
    follower,
    memory,
    peer,
    policy,
    rival,
    silent,
    snap,
    statement,
    view,
)

DEFAULT = policy()
THERE = Candidate("pg2", 2)
LOST = Conflict((Rival(THERE, NOW),), Signals(THERE, THERE, None), THERE)
TIED = Conflict((Rival(THERE, NOW),), Signals(THERE, None, None), None)


def _and(known: Peer) -> Callable[[View], View]:
    return lambda evidence: replace(evidence, peers=(*evidence.peers, known))


def _remembering(**more: object) -> Callable[[View], View]:
    return lambda evidence: replace(
        evidence,
        memory=replace(evidence.memory, **more),  # type: ignore[arg-type]  # the fields of Memory
    )


def _local(local: Local) -> Callable[[View], View]:
    return lambda evidence: replace(evidence, local=local)


# Each alone forbids, whatever else is known. A snapshot replaces the one before, so those are alternatives.
LOCAL = [
    _local(Local()),
    _local(Local(snap(age=2.001))),
    _local(Local(snap(), failure())),
    _local(Local(snap(), None, failure(), 2)),
    _local(Local(follower("pg2"))),
    _local(Local(snap(timeline=None))),
    _local(Local(snap(system_identifier=None))),
    _local(Local(snap(read_only=True))),
]
FORBIDDING = [
    lambda evidence: replace(evidence, stopping=True),
    _remembering(maintenance=Maintenance(NOW + 0.001)),
    _remembering(high_water={SYSTEM: 2}),
    _remembering(conflict=LOST),
    _remembering(conflict=TIED),
    _remembering(saved_high_water={}),
    _and(peer("pg5", statement("pg5", snap(system_identifier=OTHER_SYSTEM)))),
    _and(replace(silent("pg5"), last_call=None)),
    _and(rival("pg5", 1, serving=True)),
    _and(rival("pg5", 2, serving=True, age=2.0)),
    _and(rival("pg5", 2)),
    _and(rival("pg5", 2, yields_to=Candidate("pg4", 1))),
    _and(replace(rival("pg5", 1, serving=True, age=2.9), silent_since=NOW - 2.4)),
    _and(rival("pg5", 1, serving=True, age=2.9, incarnation="x")),
    _and(peer("pg5", statement("pg5", stopped_serving_at=NOW - 2.999))),
    _and(replace(rival("pg5", 1, serving=True, age=2.5), alarm=Alarm.WRONG_NAME)),
]
HARMLESS = [
    _and(silent("pg6")),
    _and(peer("pg7", statement("pg7", follower("pg1")))),
    _and(rival("pg8", 2, yields_to=Candidate("pg1", 1))),
    _remembering(conflict=Conflict((Rival(THERE, NOW),), Signals(), Candidate("pg1", 1))),
]


@given(
    st.lists(st.sampled_from(HARMLESS), unique=True),
    st.lists(st.sampled_from(FORBIDDING), unique=True),
    st.none() | st.sampled_from(LOCAL),
    st.randoms(use_true_random=False),
)
def test_permission_is_never_given_against_anything_that_forbids(
    harmless: list[Callable[[View], View]],
    forbidding: list[Callable[[View], View]],
    local: Callable[[View], View] | None,
    order: object,
) -> None:
    changes = [*harmless, *([local] if local else [])]
    evidence = view()
    for change in changes:
        evidence = change(evidence)
    for change in forbidding:  # last, so that nothing harmless undoes one of them
        evidence = change(evidence)
    assert decide_primary(evidence, DEFAULT).ok == (not forbidding and local is None)


# A fully informed set of agents.


@dataclass(frozen=True)
class Truth:
    """One node: what its PostgreSQL is, and what its agent has done before."""

    primary: bool
    timeline: int
    follows: int
    served: int | None  # timeline
    served_ago: float
    serving: bool


TRUTHS = st.lists(
    st.builds(
        Truth,
        primary=st.booleans(),
        timeline=st.integers(1, 3),
        follows=st.integers(1, 5),
        served=st.none() | st.integers(1, 3),
        served_ago=st.sampled_from([0.1, 2.0, 9.0, 11.0]),
        serving=st.booleans(),
    ),
    min_size=2,
    max_size=5,
)
STEP = 0.4  # seconds from one round to the next
ROUNDS = 20  # 8 s: beyond every drain and every wait but takeover_after


def board_of(number: int, truth: Truth, names: list[str]) -> Board:
    """The board of a node that begins with its own past, and knows nobody yet."""
    name = f"pg{number}"
    past = None if truth.served is None else Served(SYSTEM, truth.served, NOW - truth.served_ago)
    mark = {SYSTEM: truth.served} if truth.served else {}
    board = Board(
        Identity(name, "main", f"start of {name}", f"{address(name)}:5432"),
        DEFAULT,
        memory(
            term=None,
            served=past,
            serving=truth.serving,
            high_water=mark,
            saved_high_water={SYSTEM: 9},
            started_at=NOW - 60,
        ),
        [Peer(other) for other in names if other != name],
    )
    board.addresses = addresses(*names)
    return board


def look(board: Board, number: int, truth: Truth, now: float) -> None:
    """One poll of its PostgreSQL."""
    shown = snap() if truth.primary else follower(f"pg{truth.follows}" if truth.follows != number else None)
    board.observe(replace(shown, timeline=truth.timeline, asked_at=now), now)


def exchange(boards: list[Board], now: float) -> None:
    """Everybody asks everybody, and all answers arrive."""
    said = [(board.identity.name, encode(board.describe(now))) for board in boards]
    for board in boards:
        for name, body in said:
            if name != board.identity.name:
                board.hear(name, statement_of(decode(body), now, now + 0.01), now + 0.01)
                board.end_call(name, now, now + 0.01)


@settings(max_examples=300)
@given(TRUTHS)
def test_of_a_fully_informed_set_at_most_one_is_allowed(truths: list[Truth]) -> None:
    names = [f"pg{number}" for number in range(1, len(truths) + 1)]
    boards = [board_of(number, truth, names) for number, truth in enumerate(truths, start=1)]
    for step in range(ROUNDS):
        now = NOW + step * STEP
        for number, (board, truth) in enumerate(zip(boards, truths, strict=True), start=1):
            look(board, number, truth, now)
        exchange(boards, now + 0.05)
        for later in (0.07, 0.2, 0.39):
            allowed = [board.identity.name for board in boards if board.primary(now + later).ok]
            assert len(allowed) <= 1, f"after {step + 1} rounds: {allowed}"
    for name in allowed:  # and it is right: no replica, on no older timeline than was ever served
        truth = truths[names.index(name)]
        marks = [other.served for other in truths if other.served is not None]
        assert truth.primary
        assert truth.timeline >= max(marks, default=0)


def test_the_only_primary_of_a_fully_informed_set_is_allowed() -> None:
    truths = [Truth(True, 2, 0, 1, 60, False), Truth(False, 2, 1, None, 0, False)]
    names = ["pg1", "pg2"]
    boards = [board_of(number, truth, names) for number, truth in enumerate(truths, start=1)]
    for step in range(3):
        for number, (board, truth) in enumerate(zip(boards, truths, strict=True), start=1):
            look(board, number, truth, NOW + step * STEP)
        exchange(boards, NOW + step * STEP + 0.05)
    assert [board.primary(NOW + 1.0).ok for board in boards] == [True, False]
    assert boards[1].role(NOW + 1.0) is Role.REPLICA
