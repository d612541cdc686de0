"""The log: one line per change, never one per poll."""

import logging

import pytest

from healthagent.board import Board, Identity
from healthagent.core.model import Role
from healthagent.core.view import Maintenance, Memory, Override
from healthagent.events import Events
from healthagent.journal import AWAY, Journal
from tests.builders import NOW, policy, snap


@pytest.fixture
def board() -> Board:
    made = Board(Identity("pg1", "main", "start"), policy(durable=False), Memory(NOW - 500))
    made.observe(snap(), NOW)
    return made


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    caplog.clear()
    return lines


def test_one_line_per_change_of_verdict(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    events = Events()
    journal = Journal(board, events)
    assert journal.note(NOW)
    assert told(caplog) == [
        "INFO primary: 200 primary: primary on timeline 1",
        "INFO replica: 503 not_replica: PostgreSQL is not in recovery: a primary",
    ]
    assert not journal.note(NOW + 1)
    board.maintain(Maintenance(NOW + 60), NOW + 1)
    assert journal.note(NOW + 1)
    assert not journal.note(NOW + 2)  # another number in the detail is no change
    assert len(told(caplog)) == 2
    assert journal.changes["primary", "maintenance"] == 1
    assert [(event.kind, event.ok, event.reason) for event in events.newest(9)] == [
        ("primary", True, "primary"),
        ("replica", False, "not_replica"),
        ("primary", False, "maintenance"),
        ("replica", False, "maintenance"),
    ]


def test_an_alarm_that_comes_and_goes_with_each_poll_is_told_once(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    journal = Journal(board, Events())
    for poll in range(100):
        journal.note_alarms(["peer pg2: nonsense"] if poll % 2 == 0 else [], NOW + poll / 2)
    assert told(caplog) == ["WARNING peer pg2: nonsense"]


def test_an_alarm_ends_when_it_has_been_away_for_a_while(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    events = Events()
    journal = Journal(board, events)
    journal.note_alarms(["disk full"], NOW)
    caplog.clear()
    journal.note_alarms([], NOW + AWAY - 0.001)
    assert told(caplog) == []
    journal.note_alarms([], NOW + AWAY)
    assert told(caplog) == ["INFO no longer: disk full"]
    journal.note_alarms(["disk full"], NOW + AWAY)
    assert told(caplog) == ["WARNING disk full"]
    assert [(event.kind, event.reason, event.detail) for event in events.newest(9)] == [
        ("alarm", reason, "disk full") for reason in ("begin", "end", "begin")
    ]


def test_what_an_operator_asked_for_ends_with_a_line(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    journal = Journal(board, events)
    board.maintain(Maintenance(NOW + 5), NOW)
    board.force(Override(True, NOW, NOW + 60, 1, "alice", "fire"), NOW)
    journal.note_ends(NOW)
    board.observe(snap(age=-6.0), NOW + 6)
    journal.note_ends(NOW + 6)
    journal.note_ends(NOW + 7)
    board.observe(snap(Role.REPLICA, age=-8.0), NOW + 8)
    journal.note_ends(NOW + 8)
    board.force(Override(False, NOW + 8, NOW + 9, None), NOW + 8)
    board.force(None, NOW + 8)  # by an operator: told of where that is done
    journal.note_ends(NOW + 9)
    assert told(caplog) == [
        "WARNING maintenance is over: its time is up",
        "WARNING override of /primary is over: PostgreSQL has changed its role or timeline",
    ]
    assert [(event.kind, event.reason) for event in events.newest(9)] == [
        ("maintenance", "over"),
        ("override", "over"),
    ]
