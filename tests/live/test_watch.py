"""`healthagent list --watch` as a program: on a real terminal, and in a pipe."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from healthagent.commands.watch import CLEAR, END_OF_LINE, HOME
from tests.bed.command import HEALTHAGENT
from tests.bed.web import answering
from tests.test_list import answers_of, of_four

pytestmark = pytest.mark.live

PATIENCE = 20.0  # seconds for what takes one or two
FIRST = "Member  Host"


class Seen:
    """What a program writes to a terminal, or a pipe, as it comes."""

    def __init__(self, descriptor: int) -> None:
        self.text = ""
        self._descriptor = descriptor

    def until(self, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.text.count(words) < times:
            left = deadline - time.monotonic()
            assert left > 0, f"waited for {times} x {words!r}, seen:\n{self.text}"
            if select.select([self._descriptor], [], [], left)[0]:
                self.text += os.read(self._descriptor, 65536).decode()


@contextmanager
def on_a_terminal(
    url: str, rows: int = 24, columns: int = 120
) -> Iterator[tuple[Seen, "subprocess.Popen[bytes]"]]:
    """The command with a terminal of its own, on which Ctrl-C is a key."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    command = [*HEALTHAGENT, "list", "--watch", "--url", url]
    ours_not_theirs = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=ours_not_theirs
    )
    os.close(theirs)
    try:
        yield Seen(ours), process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_it_is_written_in_place_until_ctrl_c() -> None:
    with answering(answers_of(of_four())) as url, on_a_terminal(url) as (seen, process):
        seen.until(FIRST, 3)
        assert seen.text.count(CLEAR) == 1  # cleared once; after that lines are written over
        assert seen.text.count(HOME) >= 3
        assert "\033[2J" not in seen.text.replace(CLEAR, "")
        assert f"witness{END_OF_LINE}" in seen.text
        assert "Ctrl-C ends" in seen.text
        assert "\033[32myes" in seen.text
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in seen.text


def test_an_agent_that_does_not_answer_is_not_shown_as_if_it_did() -> None:
    with answering({}) as url:
        pass
    with on_a_terminal(url) as (seen, process):
        seen.until("does not answer for 1 s")
        assert FIRST not in seen.text
        assert process.poll() is None


def test_a_screen_that_is_too_small_does_not_scroll() -> None:
    with answering(answers_of(of_four())) as url, on_a_terminal(url, rows=5) as (seen, _):
        seen.until("...", 2)
        frame = seen.text.split(HOME)[-2]
        assert frame.count("\n") == 4


@pytest.mark.parametrize("form", ["table", "json"])
def test_in_a_pipe_there_is_one_after_the_other(form: str) -> None:
    with answering(answers_of(of_four())) as url:
        command = [*HEALTHAGENT, "list", "--watch", "--url", url, "--format", form]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        seen = Seen(process.stdout.fileno())
        seen.until("witness", 4)  # twice in each: a role and a reason
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints) == (0, b"")
    assert "\033" not in seen.text
    if form == "json":
        assert [len(json.loads(line)) for line in seen.text.splitlines()[:2]] == [4, 4]
    else:
        assert [table.splitlines()[1][:12] for table in seen.text.split("\n\n")[:2]] == [FIRST, FIRST]


def test_a_reader_that_has_seen_enough_ends_it() -> None:
    with answering(answers_of(of_four())) as url:
        command = f"{' '.join(HEALTHAGENT)} list --watch --url {url} | head -2"
        ended = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    assert FIRST in ended.stdout
    assert ended.stderr == ""
