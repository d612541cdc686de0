"""The list of what happened: bounded, numbered, kept over restarts, and never in the way."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from healthagent import events as module
from healthagent.events import MAX_DETAIL, MOST, MOST_SAVED, NAME, EventFile, Events, Kind, load
from healthagent.server.answers import Answers
from healthagent.server.events import USUAL, events_answer
from tests.bed.boards import PRIMARY, START, board

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def some(count: int) -> Events:
    events = Events(wall=lambda: NOON)
    for number in range(count):
        events.add(Kind.ALARM, START + number, reason="begin", detail=f"alarm {number + 1}")
    return events


def answered(events: Events, query: str = "", now: float = START) -> tuple[int, Any]:
    made = board(PRIMARY)
    answers = Answers(made)
    answers.asked["/events"] = events_answer(made, events)
    answer = answers.answer("/events", query, now)
    assert answer is not None
    return answer.status, json.loads(answer.body)


def numbers(events: Events, query: str = "") -> list[int]:
    status, body = answered(events, query)
    assert status == 200
    return [event["seq"] for event in body["events"]]


def test_an_event_says_what_when_and_who() -> None:
    events = Events(wall=lambda: NOON)
    events.add(Kind.MAINTENANCE, START - 2.5, reason="on", detail="for 60 s", who="127.0.0.1", why="disk")
    status, body = answered(events)
    assert status == 200
    assert body == {
        "name": "pg1",
        "cluster": "main",
        "incarnation": "00000000-0000-4000-8000-000000000001",
        "first": 1,
        "last": 1,
        "events": [
            {
                "seq": 1,
                "at": "2026-11-22T12:00:00.000Z",
                "age": 2.5,
                "kind": "maintenance",
                "ok": None,
                "reason": "on",
                "detail": "for 60 s",
                "who": "127.0.0.1",
                "why": "disk",
            }
        ],
    }


def test_nothing_has_happened_yet() -> None:
    _, body = answered(Events())
    assert (body["first"], body["last"], body["events"]) == (None, 0, [])


def test_the_list_is_bounded_and_the_oldest_go_first() -> None:
    events = some(MOST + 1)
    assert (events.first, events.last) == (2, MOST + 1)
    assert numbers(events, f"limit={MOST}") == list(range(2, MOST + 2))


def test_long_words_are_cut() -> None:
    event = Events().add(Kind.ALARM, START, reason="r" * 999, detail="d" * 999, who="w" * 999, why="y" * 999)
    assert len(event.detail) == MAX_DETAIL
    assert max(len(word or "") for word in (event.reason, event.who, event.why)) == 200


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("limit=2", [149, 150], id="the newest, oldest first"),
        pytest.param("", list(range(150 - USUAL + 1, 151)), id="a hundred where no number is asked for"),
        pytest.param("since=148", [149, 150], id="after a number"),
        pytest.param("since=10&limit=2", [11, 12], id="who follows gets the next ones, and misses none"),
        pytest.param("since=0&limit=3", [1, 2, 3], id="from the beginning"),
        pytest.param("since=150", [], id="nothing since"),
        pytest.param("since=9999", [], id="a number that is yet to come"),
        pytest.param("since=149&since=x", [150], id="the first value wins"),
        pytest.param("since=149&colour=red", [150], id="other names are ignored"),
    ],
)
def test_what_is_asked_for(query: str, expected: list[int]) -> None:
    assert numbers(some(150), query) == expected


@pytest.mark.parametrize(
    "query",
    [
        *("since=", "since=-1", "since=x", "since=1.5", "since=%20", "since=%D9%A1"),
        *("since=9223372036854775808", "since=" + "9" * 400),
        *("limit=0", "limit=501", "limit=", "limit=ten", "&".join(["a=1"] * 33)),
    ],
)
def test_what_cannot_be_understood_is_400(query: str) -> None:
    status, body = answered(some(3), query)
    assert status == 400
    assert body["error"].startswith(
        ("since: want a number from 0 to", "limit: want a number from 1", "query:")
    )


async def test_events_and_their_numbers_outlive_a_restart(tmp_path: Path) -> None:
    events = some(3)
    await EventFile(events, tmp_path, "boot 1").save_now()
    again = Events(load(tmp_path, "boot 1"))
    again.add(Kind.START, START + 10)
    assert [event.seq for event in again.newest(9)] == [1, 2, 3, 4]
    assert again.newest(9)[0].age(START + 10) == 10


async def test_after_a_reboot_the_age_is_unknown_and_the_time_stays(tmp_path: Path) -> None:
    await EventFile(some(1), tmp_path, "boot 1").save_now()
    [event] = load(tmp_path, "boot 2")
    assert event.age(START) is None
    assert event.at == "2026-11-22T12:00:00.000Z"


async def test_the_newest_are_saved_and_fit_into_what_is_read_back(tmp_path: Path) -> None:
    events = Events()
    for number in range(MOST):
        worst = "\x01" * 9999
        events.add(Kind.ALARM, START + number, reason=worst, detail=worst, who=worst, why=worst)
    await EventFile(events, tmp_path, "boot").save_now()
    assert [event.seq for event in load(tmp_path, "boot")] == list(range(MOST - MOST_SAVED + 1, MOST + 1))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"boot_id": "b", "events": [{"seq": "one", "at": "", "kind": ""}]}',
        b'{"boot_id": "b", "v": 2, "events": []}',
        b'{"boot_id": "b", "events": [{"seq": 2, "at": "", "kind": ""}, {"seq": 1, "at": "", "kind": ""}]}',
        b"[" * 100_000,
        b'{"boot_id": "b", "events": []}' + b" " * module.MAX_BYTES,
    ],
    ids=["empty", "half", "no text", "a list", "wrong type", "newer", "disorder", "deep", "too large"],
)
async def test_a_corrupt_file_is_said_and_the_list_begins_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert load(tmp_path, "b") == []
    [record] = caplog.records
    assert "the list begins anew" in record.getMessage()
    await EventFile(some(1), tmp_path, "b").save_now()
    assert len(load(tmp_path, "b")) == 1


def test_no_file_yet_is_nothing_to_speak_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(tmp_path, "b") == []
    assert not caplog.records


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).mkdir()
    assert load(tmp_path, "b") == []
    assert "cannot be read: Is a directory" in caplog.text


async def test_a_disk_that_cannot_be_written_is_logged_once_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gone = tmp_path / "gone"
    events = some(1)
    file = EventFile(events, gone, "b")
    await file.save_now()
    await file.save_now()
    [record] = caplog.records
    assert "cannot be written" in record.getMessage()
    assert events.add(Kind.STOP, START).seq == 2
    gone.mkdir()
    await file.save_now()
    assert len(load(gone, "b")) == 2
    assert caplog.records[-1].getMessage() == "events: written again"
