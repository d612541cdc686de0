"""`healthagent` as a program of its own, as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEALTHAGENT = (sys.executable, "-m", "healthagent")


@contextmanager
def healthagent(log: Path, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run it in the background, its output in `log`; on exit it is told to stop and must do so in 10 s."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*HEALTHAGENT, *arguments], stdout=output, stderr=output, env=os.environ | environment
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def ran(*arguments: str, timeout: float = 20.0, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    command = [*HEALTHAGENT, *arguments]
    variables = os.environ | environment
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env=variables
    )
