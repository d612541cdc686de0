"""What must survive a restart: one small JSON file, written whole, synced, renamed.

A reader therefore sees the old file or the new one, at whatever byte the writer died.
Instants in it are CLOCK_BOOTTIME and mean something only within the boot that wrote them.
A file that cannot be understood stops the agent: guessing here would be forgetting that
clients were sent elsewhere.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from healthagent.core.model import Instant
from healthagent.core.peer import Candidate, Served
from healthagent.core.view import Conflict, Maintenance, Memory, Override, Rival

VERSION = 1
MAX_BYTES = 1024 * 1024
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NAME = "state.json"

SystemIdentifier = Annotated[str, Meta(pattern="^[0-9]{1,20}$")]  # a key of JSON is a string
Timeline = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]


class StateError(Exception):
    """The state file cannot be read or written; the text names it and what to do."""


class Switch(Struct, frozen=True):
    """One timeline switch that this agent saw, as Patroni's /history lists it."""

    timeline: int  # the one that ended
    lsn: int
    reason: str
    timestamp: str
    new_leader: str


class Format(Struct, frozen=True):
    """Of whatever version of this agent wrote the file."""

    v: int = VERSION


class Stored(Struct, frozen=True, omit_defaults=True):
    """The content of the state file."""

    cluster: str
    boot_id: str
    saved_at: Instant
    v: int = VERSION
    high_water: Annotated[dict[SystemIdentifier, Timeline], Meta(max_length=64)] = {}
    served: Served | None = None
    conflict: Conflict | None = None
    yields_to: Candidate | None = None
    forgiven: tuple[int, int] | None = None
    maintenance: Maintenance | None = None
    override: Override | None = None  # never one that says on: a restart must not permit
    saved_wall: float | None = None  # UNIX time: only to count the time that the machine was off
    history: tuple[Switch, ...] = ()


def boot_id() -> str:
    return BOOT_ID.read_text().strip()


def load(directory: Path, cluster: str) -> Stored | None:
    """The stored state, or None when there is none yet."""
    path = directory / NAME
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        if len(body) > MAX_BYTES:
            raise msgspec.ValidationError(f"more than {MAX_BYTES} bytes")
        written = msgspec.json.decode(body, type=Format).v
        if written > VERSION:
            raise StateError(
                f"{path}: has format {written}, and this agent knows {VERSION}: a newer agent wrote it. "
                f"It says to which timeline clients were sent. Run that version again, or make sure that no "
                f"other node serves this cluster and move the file away"
            )
        stored = msgspec.json.decode(body, type=Stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(
            f"{path}: is corrupt ({error}). It says to which timeline clients were sent. Make sure that no "
            f"other node serves this cluster, then move it away and start again"
        ) from error
    if stored.cluster != cluster:
        raise StateError(
            f"{path}: belongs to cluster {stored.cluster!r}, this agent to {cluster!r}; "
            f"give each cluster its own state_dir, or move the file away"
        )
    return stored


def save(directory: Path, stored: Stored) -> None:
    """Replace the state file; after this returns it survives a power cut. Blocks: call it off the loop."""
    path = directory / NAME
    partial = directory / f"{NAME}.{os.getpid()}.partial"
    try:
        with partial.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(stored), indent=1))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StateError(f"{path}: cannot be written: {error.strerror}") from error


def stored_of(
    memory: Memory,
    cluster: str,
    boot: str,
    now: Instant,
    history: tuple[Switch, ...],
    wall: float | None = None,
) -> Stored:
    """What of the memory is worth keeping."""
    return Stored(
        cluster=cluster,
        boot_id=boot,
        saved_at=now,
        high_water={str(identifier): timeline for identifier, timeline in memory.high_water.items()},
        served=memory.served,
        conflict=memory.conflict,
        yields_to=memory.yields_to,
        forgiven=memory.forgiven,
        maintenance=memory.maintenance,
        override=None if memory.override is None or memory.override.on else memory.override,
        saved_wall=wall,
        history=history,
    )


def recall(stored: Stored | None, boot: str, now: Instant, wall: float | None = None) -> Memory:
    """The memory that an agent starts with; `wall` is the UNIX time of `now`."""
    if stored is None:
        return Memory(started_at=now)
    mark = {int(identifier): timeline for identifier, timeline in stored.high_water.items()}
    same_boot = stored.boot_id == boot
    return Memory(
        started_at=now,
        high_water=mark,
        saved_high_water=mark,
        served=stored.served if same_boot else None,
        conflict=_recalled(stored.conflict, now),
        yields_to=stored.yields_to,
        forgiven=stored.forgiven,
        maintenance=stored.maintenance if same_boot else _restarted(stored, now, wall),
        override=stored.override if same_boot else _forced_since_the_boot(stored, now, wall),
    )


def _recalled(conflict: Conflict | None, now: Instant) -> Conflict | None:
    """Nobody watched the rivals while the agent was down: a wait for them begins anew."""
    if conflict is None:
        return None
    rivals = tuple(Rival(rival.candidate, now) for rival in conflict.rivals)
    return Conflict(rivals, conflict.signals, conflict.winner)


def _restarted(stored: Stored, now: Instant, wall: float | None) -> Maintenance | None:
    kept = stored.maintenance
    if kept is None or kept.until is None:
        return kept
    return replace(kept, until=now + _left(kept.until, stored, wall))


def _forced_since_the_boot(stored: Stored, now: Instant, wall: float | None) -> Override | None:
    kept = stored.override
    return None if kept is None else replace(kept, since=now, until=now + _left(kept.until, stored, wall))


def _left(until: Instant, stored: Stored, wall: float | None) -> float:
    """Seconds left of what an operator asked for: the boot clock has begun anew.

    What was left when the file was written, without the time that the machine was off: only the wall
    clock has counted that. It makes this shorter and never longer: one that was set back costs that time.
    """
    left = max(0.0, until - stored.saved_at)
    was_off = 0.0 if wall is None or stored.saved_wall is None else max(0.0, wall - stored.saved_wall)
    return max(0.0, left - was_off)
