"""Leaving a process behind: the one that waits learns how it went."""

import subprocess
import sys
import time

import pytest

BEGIN = "import os, sys, time; from healthagent.commands.detach import detach; report = detach();"
LATE = 20.0  # seconds, on a busy machine


def started(work: str) -> tuple[int, float]:
    """The exit code of the one that waits, and how long that took."""
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", BEGIN + work], timeout=LATE, check=False)
    return ended.returncode, time.monotonic() - began


@pytest.mark.parametrize(
    ("work", "code"),
    [
        pytest.param("report.answering()", 0, id="it works"),
        pytest.param("report.failed(1)", 1, id="it fails"),
        pytest.param("report.failed(2)", 2, id="it fails otherwise"),
        pytest.param("os.abort()", 1, id="it dies"),
        pytest.param("report.answering(); report.failed(2)", 0, id="only the first word counts"),
    ],
)
def test_the_exit_code_is_what_was_reported(work: str, code: int) -> None:
    assert started(work)[0] == code


def test_nobody_waits_for_the_one_that_stays() -> None:
    code, took = started("report.answering(); time.sleep(30)")
    assert code == 0
    assert took < LATE


def test_it_belongs_to_nobody_who_started_it() -> None:
    """Not to the one that waits, nor to the process between them."""
    work = "import os; print(os.getpid(), flush=True);"
    work += BEGIN + "print(os.getppid(), flush=True); report.answering()"
    said = subprocess.run(
        [sys.executable, "-c", work], capture_output=True, text=True, timeout=LATE, check=True
    ).stdout.split()
    assert said[1] != said[0]
