"""pgpool's status file, written before pgpool starts, so that it starts with what the agents say.

pgpool chooses a primary anew at each start: with two of them it may choose the other one than
before. A backend that the file has down is not looked at. The file is `pgpool_status` in pgpool's
logdir (work_dir from 4.7), one line each: up, down or unused. pgpool takes a file in which all are
down for one in which all are up, so such a file is never written.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from healthagent.pgpool.model import Says

FILE_BYTES = 4096
WORDS = ("up", "down", "unused")


class AllRefused(Exception):
    """Every backend would be down, which pgpool understands as up. Its start must wait."""


def seeded(before: Sequence[str], said: Mapping[int, Says]) -> list[str]:
    """The lines to write; `before` are those of the present file, and stay where the agents say nothing.

    Two agents that permit writes are both refused. Raises AllRefused where no backend would be up, also when
    it is the present file that has them down and the agents are silent.
    """
    serving = [index for index, says in said.items() if says is Says.PRIMARY]
    lines = [*before, *["up"] * (max(said, default=-1) + 1 - len(before))]
    for index, says in said.items():
        if says is Says.REFUSED or (says is Says.PRIMARY and len(serving) > 1):
            lines[index] = "down"
        elif says in (Says.PRIMARY, Says.REPLICA):
            lines[index] = "up"
    if lines and "up" not in lines:
        raise AllRefused(f"all {len(lines)} backends are refused or down")
    return lines


def afresh(said: Mapping[int, Says]) -> bool:
    """Whether pgpool could start if there were no file."""
    try:
        return bool(seeded([], said))
    except AllRefused:
        return False


def read(path: Path) -> list[str]:
    """The present lines; none when there is no file or it is not one of pgpool's."""
    try:
        with path.open("rb") as file:
            lines = file.read(FILE_BYTES).decode("ascii", "replace").split()
    except FileNotFoundError:
        return []
    return lines if all(line in WORDS for line in lines) else []


def write(path: Path, lines: Sequence[str]) -> None:
    """Replace the file at once, keeping its owner and mode. Raises OSError."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text("".join(f"{line}\n" for line in lines), "ascii")
    if path.exists():
        present = path.stat()
        os.chmod(beside, present.st_mode & 0o777)
        if (present.st_uid, present.st_gid) != (os.getuid(), os.getgid()):
            os.chown(beside, present.st_uid, present.st_gid)
    os.replace(beside, path)
