"""One run of an operator's command, bounded in time and in what is kept of its words.

Everything here blocks, the start too: a program on a disk that hangs is waited for by whoever
starts it. So it runs in a thread beside the event loop, and answers wait for none of it.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_OUTPUT = 8192  # bytes of its output that are kept; the rest is read and dropped
STEP = 0.05  # seconds between two looks at a process that says nothing
LAST_WORDS = 0.5  # seconds after its end for output that is still in the pipe, or of children that hold it


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went."""

    result: str  # ok, failed, timeout
    status: int | None  # exit status, negative for a signal; None: it could not be started
    why: str  # a few words
    output: str
    seconds: float


class Run:
    """A command in a process group of its own, so that all of it can be killed."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], timeout: float) -> None:
        self._command = tuple(command)
        self._environment = dict(environment)
        self._timeout = timeout
        self._deadline = float("inf")
        self._group: int | None = None
        self._unwanted = False
        self._lock = threading.Lock()

    def __call__(self) -> Outcome:
        """Run it until it ends, or kill its group when its time is up."""
        began = time.monotonic()
        self._deadline = began + self._timeout
        try:
            process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            why = f"{self._command[0]} cannot be run: {error.strerror}"
            return Outcome("failed", None, why, "", time.monotonic() - began)
        with self._lock:
            self._group = process.pid
            unwanted = self._unwanted
        if unwanted:
            self.kill()
        output, status = self._watch(process)
        said = output.decode(errors="replace").strip()
        seconds = time.monotonic() - began
        if status is None:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a process that waits for a dead disk stays
                status = process.wait(LAST_WORDS)
            return Outcome("timeout", status, f"killed after {self._timeout:g} s", said, seconds)
        return Outcome("ok" if status == 0 else "failed", status, f"exit status {status}", said, seconds)

    def linger(self) -> None:
        """Leave what it started in the background the rest of its time, then kill that too."""
        while self._group is not None and time.monotonic() < self._deadline:
            try:
                os.killpg(self._group, 0)
            except (ProcessLookupError, PermissionError):  # all gone, or another user's: ours cannot end it
                with self._lock:
                    self._group = None  # its number may be another's soon
                return
            time.sleep(STEP)
        self.kill()

    def kill(self) -> None:
        """End the whole group now, or as soon as it has started; may be called from another thread."""
        with self._lock:
            self._unwanted = True
            if self._group is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._group, signal.SIGKILL)

    def _watch(self, process: "subprocess.Popen[bytes]") -> tuple[bytes, int | None]:
        """What it said, and its exit status, None when its time is up before."""
        assert process.stdout is not None, "it was given a pipe"
        output, pipe, status = bytearray(), process.stdout.fileno(), None
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        until, is_open = self._deadline, True
        while time.monotonic() < until and (is_open or status is None):
            if not is_open:
                time.sleep(STEP)
            elif poll.poll(STEP * 1000):
                chunk = os.read(pipe, 65536)
                output += chunk[: MAX_OUTPUT - len(output)]
                is_open = bool(chunk)
            if status is None:
                status = process.poll()
                if status is not None:
                    until = min(until, time.monotonic() + LAST_WORDS)
        process.stdout.close()
        return bytes(output), status
