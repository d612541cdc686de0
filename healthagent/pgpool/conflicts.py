"""Settings of pgpool that fight the bridge, read from pgpool itself: its file may say something else."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

LONG_SEARCH = 10  # seconds
MARK = "--may-promote"  # in a failover script that asks us before it promotes
SCRIPT_BYTES = 65536


def conflicts(settings: Mapping[str, str], vetoes: Callable[[str], bool]) -> Iterator[str]:
    """Yield a sentence for each. `vetoes` says whether a command of that text asks before it promotes."""
    if settings.get("backend_clustering_mode", "1") != "1":
        yield "backend_clustering_mode: only streaming_replication is supported"
    if (command := settings.get("failover_command", "")) and not vetoes(command):
        yield (
            f"failover_command: {command!r} is run whenever a backend is fenced; make it empty, or use the"
            " failover.sh of healthagent, which asks the agents before it promotes"
        )
    if command := settings.get("follow_primary_command", ""):
        yield f"follow_primary_command: {command!r} runs after each change of the primary; make it empty"
    if settings.get("auto_failback", "0") != "0":
        yield "auto_failback: pgpool attaches again what the agents refuse; set it to off"
    if settings.get("detach_false_primary", "0") != "0":
        yield "detach_false_primary: with two nodes it keeps the lowest id, right or wrong; set it to off"
    for name, value in settings.items():
        if re.fullmatch(r"backend_flag\d+", name) and "DISALLOW_TO_FAILOVER" in value:
            yield f"{name}: {value} refuses every detach; use ALLOW_TO_FAILOVER"
        elif re.fullmatch(r"backend_flag\d+", name) and "ALWAYS_PRIMARY" in value:
            yield f"{name}: {value} keeps pgpool from looking for the primary; use ALLOW_TO_FAILOVER"
    if settings.get("health_check_period") == "0":
        yield "health_check_period: 0 lets a dead host go unnoticed, and silence makes healthagent do nothing"
    search = search_seconds(settings)
    if search == 0 or search > LONG_SEARCH:
        lasts = "for ever" if search == 0 else f"{search} s"
        yield f"search_primary_node_timeout: while no primary is left, reads hang too, {lasts}; set it to 1"


def search_seconds(settings: Mapping[str, str]) -> int:
    """search_primary_node_timeout, 0 for ever."""
    text = settings.get("search_primary_node_timeout", "300")
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 300


def command_vetoes(command: str) -> bool:
    """Whether the program of a command line is a script that asks `healthagent` before it promotes."""
    try:
        # `VARIABLE=value program` is allowed: a shell runs it.
        words = [word for word in shlex.split(command) if not re.match(r"[A-Za-z_]\w*=", word, re.ASCII)]
        program = Path(words[0])
        with program.open("rb") as file:
            return MARK.encode() in file.read(SCRIPT_BYTES)
    except (OSError, ValueError, IndexError):
        return False
