"""`healthagent demo` as a user runs it, to its end and cut short: its claims hold, and nothing is left."""

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from healthagent.demo.postgres import until
from tests.bed.command import HEALTHAGENT
from tests.bed.readme import blocks

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

# Reasons that may come and go between two looks, and so are not always seen.
PASSING = ("rival_draining", "state_unsaved", "start_gate")
FOLDER = re.compile(r"/\S*/healthagent-\w+")


@dataclass
class Demo:
    """A running demo, and what it has started and made so far."""

    process: "subprocess.Popen[bytes]"
    output: Path

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        def seen() -> bool:
            assert self.process.poll() is None, self.said()
            return text in self.said()

        until(seen, 60.0, f"the demo says {text!r}")

    def left(self) -> tuple[set[int], set[Path]]:
        """Its processes, orphans included, and its folders."""
        pids = _descendants(self.process.pid) - {self.process.pid}
        commands = [_command(pid) for pid in pids]
        return pids, {Path(found) for command in commands for found in FOLDER.findall(command)}


@contextmanager
def demo(folder: Path, *arguments: str, terminal: int | None = None, **environment: str) -> Iterator[Demo]:
    """Start it; by default its standard input stays open and silent, so that waiting for it would hang."""
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*HEALTHAGENT, "demo", *arguments],
            stdin=subprocess.PIPE if terminal is None else terminal,
            stdout=file if terminal is None else terminal,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
    try:
        yield Demo(process, output)
    finally:
        process.kill()
        process.communicate()


def test_every_claim_of_the_demo_holds(tmp_path: Path) -> None:
    with demo(tmp_path, "--script") as running:
        running.wait_for("2. The primary dies")
        pids, folders = running.left()
        code = running.process.wait(150)
    assert code == 0, running.said()
    assert "claims held" in running.said()
    assert "NOT" not in running.said()
    _assert_gone(pids, folders)
    printed = {_plain(line) for line in running.said().splitlines()}
    [capture] = [block.text for block in blocks() if block.language == "text"]
    shown = [
        line for line in capture.splitlines() if line != "..." and not any(one in line for one in PASSING)
    ]
    assert [line for line in shown if _plain(line) not in printed] == [], "README.md shows what is not said"


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [
        pytest.param(signal.SIGINT, 130, "3. A standby is promoted", id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, "1. A cluster", id="SIGTERM"),
        pytest.param(signal.SIGKILL, -9, "2. The primary dies", id="SIGKILL"),
    ],
)
def test_nothing_is_left_of_a_demo_that_is_cut_short(
    tmp_path: Path, number: int, code: int, step: str
) -> None:
    with demo(tmp_path) as running:  # no --script: without a terminal it does not wait for anybody
        running.wait_for(step)
        pids, folders = running.left()
        assert len(pids) > 10
        assert folders
        running.process.send_signal(number)
        assert running.process.wait(30) == code, running.said()
    assert "Traceback" not in running.said()
    _assert_gone(pids, folders)


def test_on_a_terminal_it_waits_and_q_ends_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with demo(tmp_path, terminal=theirs) as running:
        os.close(theirs)
        shown = _read_until(ours, b"[Enter: go on, q: end]")
        os.write(ours, b"\n")
        shown += _read_until(ours, b"[Enter: go on, q: end]")
        pids, folders = running.left()
        os.write(ours, b"q\n")
        assert running.process.wait(30) == 0, shown
    os.close(ours)
    assert b"2. The primary dies" in shown
    assert b"3. A standby" not in shown
    _assert_gone(pids, folders)


def test_logs_and_configurations_are_kept_on_demand(tmp_path: Path) -> None:
    with demo(tmp_path, "--keep", TMPDIR=str(tmp_path)) as running:
        running.wait_for("1. A cluster")
        running.process.send_signal(signal.SIGINT)
        running.process.wait(30)
    kept = re.search(r"are kept in (\S+)", running.said())
    assert kept, running.said()
    names = {file.name for file in Path(kept[1]).rglob("*") if file.is_file()}
    assert names >= {"healthagent.yaml", "healthagent.log", "postgresql.log"}


def _plain(line: str) -> str:
    """A line without what differs from one run to the next."""
    return re.sub(r"\d+", "0", " ".join(line.split()))


def _assert_gone(pids: set[int], folders: set[Path]) -> None:
    # the reaper of a demo that was killed works on after it
    until(lambda: not any(_command(pid) for pid in pids), 20.0, "all processes have ended")
    until(lambda: not any(folder.exists() for folder in folders), 20.0, "all folders are removed")


def _descendants(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    found = {pid}
    while children := {child for child, parent in parents.items() if parent in found} - found:
        found |= children
    return found


def _command(pid: int) -> str:
    """The command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _read_until(terminal: int, wanted: bytes, within: float = 60.0) -> bytes:
    """What a terminal shows until `wanted` is seen."""
    shown, deadline = b"", time.monotonic() + within
    os.set_blocking(terminal, False)
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        try:
            shown += os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.05)
    return shown
