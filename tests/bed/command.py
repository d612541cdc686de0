"""`healthagent` as a program of its own, as a user runs it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEALTHAGENT = (
    sys.executable,
    "-c",
    "import argparse, sys; from healthagent.commands import pgpool_sync as c; p = argparse.ArgumentParser();"
    " c.add_parser(p.add_subparsers()); a = p.parse_args(); sys.exit(a.command(a))",
)


@contextmanager
def healthagent(log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run it in the background, its output in `log`; on exit it is told to stop and must do so in 10 s."""
    with log.open("wb") as output:
        process = subprocess.Popen([*HEALTHAGENT, *arguments], stdout=output, stderr=output)
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


def ran(*arguments: str, timeout: float = 20.0) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    command = [*HEALTHAGENT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
