"""Programs that run beside the walk-through: agents and HAProxy. PostgreSQL's own are in postgres.py."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

POLL = 0.01
_OURS = ("HEALTHAGENT_", "PG")  # variables of whoever runs the demo must not configure what it starts


def start(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """Start a program, its output appended to `log`. It does not outlive us, even if we are killed."""
    prefix = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
    with log.open("ab") as output:
        # A session of its own: Ctrl-C at the terminal is for us, and we end what we started.
        return subprocess.Popen(
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def end(processes: Iterable["subprocess.Popen[bytes]"], patience: float = 0.0) -> None:
    """End them: SIGTERM if there is patience (seconds, for all of them), then SIGKILL; idempotent."""
    running = [process for process in processes if process.poll() is None]
    deadline = time.monotonic() + patience
    if patience:
        for process in running:
            process.send_signal(signal.SIGTERM)
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(POLL)
    for process in running:
        process.kill()
        process.wait()


def tail(log: Path, lines: int = 10) -> str:
    """The last lines of a log; empty when there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
