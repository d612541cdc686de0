"""What the service manager is told, and that telling it never harms."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from healthagent.notify import LONGEST_STATUS, MOST_KEPT, SLACK, Notifier, Watchdog, keep_notified
from tests.bed.manager import Manager

PID = 4711
PERIOD, BUDGET = 10.0, 1.5
STUCK = BUDGET + SLACK


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "notify"


@pytest.fixture
def notifier(socket_path: Path) -> Iterator[Notifier]:
    with closing(Notifier(str(socket_path), PERIOD)) as notifier:
        yield notifier


def test_a_path(socket_path: Path, notifier: Notifier) -> None:
    with Manager(socket_path) as manager:
        notifier.ready()
        assert manager.read() == ["READY=1"]


def test_a_name_in_the_abstract_namespace() -> None:
    name = f"@healthagent-test-{time.monotonic_ns()}"
    with Manager(name) as manager, closing(Notifier(name)) as notifier:
        notifier.ready()
        assert manager.read() == ["READY=1"]


def test_the_words_of_the_protocol(socket_path: Path, notifier: Notifier) -> None:
    with Manager(socket_path) as manager:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.ready()
        notifier.reloading()
        notifier.main_pid(PID)
        notifier.status("primary: 200")
        notifier.feed()
        notifier.stopping()
        first, reloading, instant, *rest = manager.read()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert (first, reloading) == ("READY=1", "RELOADING=1")
    assert rest == ["MAINPID=4711", "STATUS=primary: 200", "WATCHDOG=1", "STOPPING=1"]
    name, _, value = instant.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= after


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("postgres_down: x\nMAINPID=1", "postgres_down: x MAINPID=1", id="no second line"),
        pytest.param("a\r\x0b\x1b[31m\u2028b", "a [31m b", id="nothing that moves a cursor"),
        pytest.param("ä" * LONGEST_STATUS, "ä" * (LONGEST_STATUS // 2), id="an end, between two letters"),
    ],
)
def test_a_status_is_one_short_line(socket_path: Path, notifier: Notifier, text: str, told: str) -> None:
    with Manager(socket_path) as manager:
        notifier.status(text)
        assert manager.read() == [f"STATUS={told}"]


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.from_environment({}, PID)
    notifier.ready()
    notifier.feed()
    assert (notifier.address, notifier.watchdog, caplog.records) == (None, None, [])


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative", "@"])
def test_an_address_that_is_not_spoken(address: str, caplog: pytest.LogCaptureFixture) -> None:
    Notifier(address).ready()
    assert [record.getMessage() for record in caplog.records] == [
        f"NOTIFY_SOCKET: want an absolute path or @name, got {address!r}: nobody is notified"
    ]


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        pytest.param({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "4711"}, 10.0, id="for this process"),
        pytest.param({"WATCHDOG_USEC": "500000"}, 0.5, id="for whoever reads it"),
        pytest.param({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None, id="for another process"),
        pytest.param({"WATCHDOG_USEC": "0"}, None, id="off"),
        pytest.param({"WATCHDOG_USEC": "-5"}, None, id="no number"),
        pytest.param({"WATCHDOG_USEC": "\u0665"}, None, id="no number of ours"),
        pytest.param({}, None, id="none"),
    ],
)
def test_the_period_of_the_watchdog(environment: Mapping[str, str], seconds: float | None) -> None:
    assert Notifier.from_environment(environment, PID).watchdog == seconds


def test_a_manager_that_is_away_is_logged_once_and_told_later(
    socket_path: Path, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    notifier.ready()
    notifier.feed()
    notifier.flush()
    with Manager(socket_path) as manager:
        notifier.flush()
        assert manager.read() == ["READY=1"], "what was fed then says nothing about now"
    assert [record.getMessage() for record in caplog.records] == [
        f"the service manager cannot be notified at {socket_path}: No such file or directory",
        "the service manager can be notified again",
    ]


def fill(address: Path) -> None:
    """Send until the socket takes no more, from senders enough: each has a limit of its own, too."""
    sent = 1
    while sent:
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"X=1", str(address))
                sent += 1


def test_a_full_socket_is_not_waited_for_and_loses_nothing_that_counts(
    socket_path: Path, notifier: Notifier
) -> None:
    with Manager(socket_path) as manager:
        fill(socket_path)
        notifier.status("old")
        notifier.ready()
        notifier.status("new")
        notifier.feed()
        assert set(manager.read()) == {"X=1"}
        notifier.feed()
        assert set(manager.read()) == {"X=1"}, "nothing overtakes what waits"
        notifier.flush()
        notifier.feed()
        assert [told for told in manager.read() if told != "X=1"] == ["READY=1", "STATUS=new", "WATCHDOG=1"]


def test_what_waits_has_a_limit(socket_path: Path, notifier: Notifier) -> None:
    for pid in range(MOST_KEPT + 2):
        notifier.main_pid(pid)
    with Manager(socket_path) as manager:
        for _ in range(MOST_KEPT):  # a socket holds some ten datagrams
            notifier.flush()
            manager.read()
        assert manager.read() == [f"MAINPID={pid}" for pid in range(2, MOST_KEPT + 2)]


@pytest.mark.parametrize(
    ("polls", "looks", "fed"),
    [
        pytest.param([], [0, 5, 10], [], id="not before the first poll has ended"),
        pytest.param([0], [0], [0], id="at once when it has"),
        pytest.param([0, 4.9, 5], [0, 4.9, 5], [0, 5], id="twice a period"),
        pytest.param([0], [0, STUCK - 0.1, 5], [0], id="no more once no poll ends"),
        pytest.param([0, 5 - STUCK], [0, 5], [0, 5], id="while the last poll is within its budget"),
        pytest.param([0, 4.9 - STUCK], [0, 5], [0], id="and not beyond it"),
        pytest.param([0, 8], [0, 5, 7, 8, 9], [0, 8], id="again as soon as a poll ends"),
    ],
)
def test_when_the_watchdog_is_fed(polls: list[float], looks: list[float], fed: list[float]) -> None:
    watchdog, found = Watchdog(PERIOD, BUDGET), []
    for now in sorted({*polls, *looks}):
        if now in polls:
            watchdog.progress(now)
        if now in looks and watchdog.due(now):
            found.append(now)
    assert found == fed


def test_a_witness_polls_nothing() -> None:
    watchdog = Watchdog(PERIOD, None)
    assert [now for now in (0.0, 4.9, 5.0, 60.0) if watchdog.due(now)] == [0.0, 5.0, 60.0]


def test_a_watchdog_that_is_off_is_not_fed() -> None:
    watchdog = Watchdog(None, BUDGET)
    watchdog.progress(0.0)
    assert not watchdog.due(0.0)


@pytest.mark.parametrize("budget", [BUDGET, None])
async def test_ready_comes_after_the_first_evidence_and_before_the_first_meal(
    socket_path: Path, notifier: Notifier, budget: float | None
) -> None:
    looked = asyncio.Event()

    def clock() -> float:
        looked.set()
        return 0.0

    with Manager(socket_path) as manager:
        watchdog = Watchdog(PERIOD, budget)
        keeping = asyncio.create_task(keep_notified(notifier, watchdog, clock))
        try:
            await looked.wait()
            assert manager.read() == ([] if budget is not None else ["READY=1", "WATCHDOG=1"])
            watchdog.progress(0.0)
            looked.clear()
            await looked.wait()
            assert manager.read() == ["READY=1", "WATCHDOG=1"]
        finally:
            keeping.cancel()
