"""What a line of the log looks like, to a person, a machine and the journal."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import pytest

from healthagent.config import LogSettings
from healthagent.logs import log_to_stderr

log = logging.getLogger("healthagent.test")
Written = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("healthagent")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@contextmanager
def stderr(folder: Path) -> Iterator[Written]:
    """Standard error is a file; yields what was written to it."""
    path = folder / "stderr"
    with path.open("w", buffering=1) as file, redirect_stderr(file):
        yield lambda: path.read_text().splitlines()


def journal(monkeypatch: pytest.MonkeyPatch, inode: int = 0) -> None:
    """Tell the process, as systemd does, that its standard error (or another file) is the journal."""
    found = os.fstat(sys.stderr.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{inode or found.st_ino}")


def test_a_line_for_people(tmp_path: Path) -> None:
    with stderr(tmp_path) as written:
        log_to_stderr(LogSettings())
        log.info("primary: %s", 200)
        (line,) = written()
    assert line.endswith("Z INFO primary: 200")


def test_a_line_for_machines(tmp_path: Path) -> None:
    with stderr(tmp_path) as written:
        log_to_stderr(LogSettings(format="json"))
        log.info("primary: 503", extra={"kind": "primary", "ok": False, "reason": "diverged"})
        (line,) = written()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        **{"level": "info", "logger": "healthagent.test", "message": "primary: 503"},
        **{"kind": "primary", "ok": False, "reason": "diverged"},
    }


def test_levels_for_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr(tmp_path) as written:
        journal(monkeypatch)
        log_to_stderr(LogSettings(level="debug"))
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            log.log(level, "words")
        assert [line[:3] for line in written()] == ["<7>", "<6>", "<4>", "<3>", "<2>"]


def test_each_line_of_an_error_has_its_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr(tmp_path) as written:
        journal(monkeypatch)
        log_to_stderr(LogSettings())
        log.error("first\nsecond")
        assert [line.startswith("<3>") for line in written()] == [True, True]


def test_json_stays_json_behind_the_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr(tmp_path) as written:
        journal(monkeypatch)
        log_to_stderr(LogSettings(format="json"))
        log.warning("words")
        (line,) = written()
    assert (line[:3], json.loads(line[3:])["message"]) == ("<4>", "words")


def test_a_file_in_the_journals_place_gets_no_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr(tmp_path) as written:
        journal(monkeypatch, inode=1)
        log_to_stderr(LogSettings())
        log.warning("words")
        assert written()[0].endswith("Z WARNING words")
