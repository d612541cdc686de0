"""The last hour: what is kept of it, what is not, and that it stays small."""

import sys
from dataclasses import replace

import pytest

from healthagent.core.model import Role
from healthagent.history import (
    LOOK_EVERY,
    MOST_MEMBERS,
    MOST_STATES,
    SLOT,
    SLOTS,
    History,
    Run,
    Shade,
    State,
    shade_of,
)
from healthagent.standing import Standing

NOW = 10_000.0  # the beginning of a slot
SERVES = Standing(
    "pg1", "pg1", heard=True, role=Role.PRIMARY, timeline=2, writes=True, reads=False, reason="primary"
)
REFUSED = replace(SERVES, writes=False, reason="lost_conflict")
READS = Standing(
    "pg1", "pg1", heard=True, role=Role.REPLICA, timeline=2, writes=False, reads=True, reason="replica"
)
GONE = Standing("pg1", "pg1")


@pytest.mark.parametrize(
    ("standing", "shade"),
    [
        (SERVES, Shade.WRITES),
        (REFUSED, Shade.PRIMARY_REFUSED),
        (READS, Shade.READS),
        (replace(READS, reads=None), Shade.READS),
        (replace(READS, reads=False, reason="lagging"), Shade.REPLICA_REFUSED),
        (replace(READS, reads=False, reason="maintenance"), Shade.OUT),
        (replace(SERVES, writes=False, reason="stopping"), Shade.OUT),
        (replace(SERVES, role=None, writes=False, reason="postgres_down"), Shade.DOWN),
        (Standing("w1", "w1", witness=True, heard=True, writes=False, reason="witness"), Shade.WITNESS),
        (GONE, Shade.SILENT),
        (replace(GONE, role=Role.PRIMARY), Shade.SILENT),
    ],
    ids=lambda value: value.name if isinstance(value, Shade) else value.reason,
)
def test_what_a_member_is_good_for(standing: Standing, shade: Shade) -> None:
    assert shade_of(standing) is shade


def empty() -> History:
    return History(lambda _now: (), NOW)


def shades(history: History, slots: int = SLOTS, most: int = SLOTS) -> list[tuple[int, int, Shade]]:
    return [(run.begin, run.end, run.state.shade) for run in history.runs("pg1", slots, most)]


def test_equal_neighbours_are_one_run() -> None:
    history = empty()
    for slot in range(10):
        history.note([SERVES if slot < 6 else REFUSED], NOW + slot * SLOT)
    assert shades(history) == [
        (0, SLOTS - 10, Shade.NOTHING),
        (SLOTS - 10, SLOTS - 4, Shade.WRITES),
        (SLOTS - 4, SLOTS, Shade.PRIMARY_REFUSED),
    ]
    assert history.runs("pg1", 120, 120)[-1].state == State(Shade.PRIMARY_REFUSED, 2, "lost_conflict")
    assert shades(history, 120)[-1] == (116, 120, Shade.PRIMARY_REFUSED)
    assert history.recorded == 10


@pytest.mark.parametrize("order", [(SERVES, REFUSED), (REFUSED, SERVES)], ids=["before", "after"])
def test_of_one_slot_the_worst_is_kept(order: tuple[Standing, ...]) -> None:
    history = empty()
    for second, standing in enumerate(order):
        history.note([standing], NOW + second)
    assert shades(history)[-1] == (SLOTS - 1, SLOTS, Shade.PRIMARY_REFUSED)
    history.note([SERVES], NOW + SLOT)
    assert shades(history)[-1] == (SLOTS - 1, SLOTS, Shade.WRITES)


def test_an_hour_is_kept_and_no_more() -> None:
    history = empty()
    history.note([REFUSED], NOW)
    for slot in range(1, SLOTS):
        history.note([SERVES], NOW + slot * SLOT)
    assert shades(history)[0] == (0, 1, Shade.PRIMARY_REFUSED)
    history.note([SERVES], NOW + SLOTS * SLOT)
    assert shades(history) == [(0, SLOTS, Shade.WRITES)]
    assert history.recorded == SLOTS


def test_of_what_was_slept_through_nothing_is_known() -> None:
    history = empty()
    history.note([SERVES], NOW)
    history.note([SERVES], NOW + 4 * SLOT)
    assert [shade for *_, shade in shades(history)][-3:] == [Shade.WRITES, Shade.NOTHING, Shade.WRITES]
    history.note([SERVES], NOW + 100 * SLOTS * SLOT)
    assert shades(history) == [(0, SLOTS - 1, Shade.NOTHING), (SLOTS - 1, SLOTS, Shade.WRITES)]


def test_what_flaps_is_put_together_and_the_worst_of_it_stays_visible() -> None:
    history = empty()
    for slot in range(SLOTS):
        history.note([REFUSED if slot == 100 else SERVES if slot % 2 else READS], NOW + slot * SLOT)
    runs = history.runs("pg1", SLOTS, 120)
    assert len(runs) <= 120
    assert [(run.begin, run.end) for run in runs if run.state.shade is Shade.PRIMARY_REFUSED] == [(96, 102)]


def test_the_largest_lag_of_each_part() -> None:
    history = empty()
    for slot, lag in enumerate((1, 7, None, 3)):
        history.note([replace(READS, lag_bytes=lag)], NOW + slot * SLOT)
        history.note([replace(READS, lag_bytes=0 if lag else None)], NOW + slot * SLOT + 1)
    assert history.lags("pg1", 120, 120)[-4:] == [1, 7, None, 3]
    assert history.lags("pg1", 120, 60)[-3:] == [None, 7, 3]


def test_who_is_not_known_or_was_taken_off_the_list_has_no_history() -> None:
    history = empty()
    assert history.runs("pg9", 120, 60) == [Run(0, 120, State(Shade.NOTHING))]
    history.note([SERVES, replace(READS, entry="pg2")], NOW)
    history.note([SERVES], NOW + 1)
    assert history.runs("pg2", 120, 60) == [Run(0, 120, State(Shade.NOTHING))]
    assert history.lags("pg2", 120, 60) == [None] * 60


def test_a_sample_each_second() -> None:
    looked: list[float] = []
    history = History(lambda now: looked.append(now) or (), NOW)  # type: ignore[func-returns-value]  # notes
    for tenth in range(25):
        history.look(NOW + tenth / 10)
    assert looked == pytest.approx([NOW, NOW + LOOK_EVERY, NOW + 2 * LOOK_EVERY])


def test_its_version_changes_with_what_it_tells_only() -> None:
    history = empty()
    history.note([SERVES], NOW)
    before = history.version
    history.note([SERVES], NOW + 1)
    assert history.version == before
    history.note([REFUSED], NOW + 2)
    assert history.version > before
    before = history.version
    history.note([REFUSED], NOW + SLOT)
    assert history.version > before


def test_memory_is_bounded_whatever_peers_make_up() -> None:
    """Every sample another timeline and reason, from more members than there may be."""
    history, names = empty(), [f"node-{number}" for number in range(MOST_MEMBERS + 5)]
    for slot in range(60):
        made_up = [
            replace(
                READS,
                entry=name,
                timeline=slot * 1000 + number,
                reason=f"reason {slot} {number}",
                lag_bytes=slot,
            )
            for number, name in enumerate(names)
        ]
        history.note(made_up, NOW + slot * SLOT)
    assert len(history._tracks) == MOST_MEMBERS
    assert len(history._states) <= MOST_STATES
    assert {state.reason for state in history._states} == {"", "other"}
    rings = sum(sys.getsizeof(track.states) + sys.getsizeof(track.lags) for track in history._tracks.values())
    states = sum(sys.getsizeof(state) for state in history._states) + sys.getsizeof(history._numbers)
    assert rings < 300_000
    assert states < 150_000
    assert history.runs(names[0], 120, 120)[-1].state.shade is Shade.READS


def test_states_that_are_out_of_sight_make_room() -> None:
    history = empty()
    for slot in range(3 * MOST_STATES):
        history.note([replace(READS, timeline=slot + 1)], NOW + slot * SLOT)
    newest = history.runs("pg1", SLOTS, SLOTS)[-1]
    assert newest.state.timeline == 3 * MOST_STATES
