"""What happened on this node: verdicts that changed, alarms, the fence hook, what operators did.

A ring of bounded size for people who ask afterwards. Nothing is decided from it: so its times are
the wall clock's, a file that is lost or corrupt is never a reason not to start, and a disk that
is full or hangs costs nothing but what a restart would have shown.
"""

import logging
import os
from asyncio import Lock, sleep
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from healthagent.core.model import Instant
from healthagent.offloop import call

NAME = "events.json"
VERSION = 1
MOST = 500  # events in memory
MOST_SAVED = 200  # of them in the file, the newest
MAX_DETAIL = 500  # characters; a peer's words may stand in it
MAX_WORD = 200  # characters of who and why
MAX_BYTES = 4 * 1024 * 1024  # of the file: 200 events of nothing but escaped characters are half of that
SAVE_AFTER = 1.0  # seconds: a change of verdict needs the disk for the state file first
AGAIN_AFTER = 5.0  # seconds, after a write that failed

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What an event is about."""

    START = "start"
    STOP = "stop"
    RELOAD = "reload"
    PRIMARY = "primary"  # a verdict changed: may this node be given writes
    REPLICA = "replica"  # a verdict changed: may it be given reads
    ALARM = "alarm"  # reason: begin, end
    FENCE = "fence"  # reason: begin, ok, failed, timeout, spared
    MAINTENANCE = "maintenance"  # reason: on, off
    OVERRIDE = "override"  # reason: what was cleared or forced


class Event(Struct, frozen=True, omit_defaults=True):
    """One thing that happened."""

    seq: int
    at: str  # RFC 3339 by the wall clock: for people, never for a decision
    kind: str
    ok: bool | None = None  # of a verdict
    reason: str = ""
    detail: str = ""
    who: str | None = None  # for what a person did
    why: str | None = None
    instant: Instant | None = None  # of this boot; None: before it

    def age(self, now: Instant) -> float | None:
        """Seconds ago, whatever was done to the wall clock since; None for an event of an earlier boot."""
        return None if self.instant is None else max(0.0, now - self.instant)


class Events:
    """The newest events, each with a number that only grows."""

    def __init__(
        self, kept: Iterable[Event] = (), wall: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._kept: deque[Event] = deque(kept, MOST)
        self._wall = wall
        self.last = self._kept[-1].seq if self._kept else 0  # the newest one's number, 0 before any

    def go_on(self, kept: Iterable[Event]) -> None:
        """Go on from the list of another process."""
        self._kept = deque(kept, MOST)
        self.last = self._kept[-1].seq if self._kept else 0

    def add(
        self,
        kind: str,
        now: Instant,
        *,
        ok: bool | None = None,
        reason: str = "",
        detail: str = "",
        who: str | None = None,
        why: str | None = None,
    ) -> Event:
        """Note that something happened; `now` is CLOCK_BOOTTIME. Never fails, never waits."""
        self.last += 1
        event = Event(
            seq=self.last,
            at=self._wall().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            kind=kind,
            ok=ok,
            reason=reason[:MAX_WORD],
            detail=detail[:MAX_DETAIL],
            who=None if who is None else who[:MAX_WORD],
            why=None if why is None else why[:MAX_WORD],
            instant=now,
        )
        self._kept.append(event)
        return event

    @property
    def first(self) -> int | None:
        """The number of the oldest one that is still here."""
        return self._kept[0].seq if self._kept else None

    def after(self, since: int, limit: int) -> list[Event]:
        """The first `limit` events after number `since`, oldest first: for those who follow."""
        return list(islice((event for event in self._kept if event.seq > since), limit))

    def newest(self, limit: int) -> list[Event]:
        """The last `limit` events, oldest first."""
        return list(self._kept)[-limit:] if limit > 0 else []


class Stored(Struct, frozen=True):
    """The content of the file."""

    boot_id: str
    events: tuple[Event, ...]
    v: int = VERSION


def load(directory: Path, boot: str) -> list[Event]:
    """The events of earlier runs; what cannot be read is said in the log, and the list begins anew."""
    path = directory / NAME
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise msgspec.ValidationError(f"more than {MAX_BYTES} bytes")
        stored = msgspec.json.decode(body, type=Stored)
        numbers = [event.seq for event in stored.events]
        if stored.v > VERSION or numbers != sorted(set(numbers)):
            raise msgspec.ValidationError(f"format {stored.v}, or numbers out of order")
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("events: %s cannot be read: %s; the list begins anew", path, error.strerror)
        return []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("events: %s is corrupt (%s); the list begins anew", path, error)
        return []
    if stored.boot_id == boot:
        return list(stored.events)
    # the clock of the instants began anew with the boot
    return [msgspec.structs.replace(event, instant=None) for event in stored.events]


def save(directory: Path, stored: Stored) -> None:
    """Replace the file whole. Blocks: call it off the loop."""
    partial = directory / f"{NAME}.{os.getpid()}.partial"
    with partial.open("wb") as file:
        file.write(msgspec.json.encode(stored))
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave the new name with nothing in it
    partial.replace(directory / NAME)


class EventFile:
    """Keeps the newest events on disk, beside the event loop: `await file.run()`, ended by cancelling it."""

    def __init__(self, events: Events, directory: Path, boot: str) -> None:
        self._events = events
        self._directory = directory
        self._boot = boot
        self._saved = events.last
        self._error: str | None = None
        self._writing = Lock()  # the last write, at the end, may meet one that is under way

    @property
    def saving(self) -> bool:
        """Whether a write is under way."""
        return self._writing.locked()

    async def run(self) -> None:
        while True:
            await sleep(SAVE_AFTER)
            if self._events.last != self._saved:
                await self.save_now()
                if self._error is not None:
                    await sleep(AGAIN_AFTER)

    async def save_now(self) -> None:
        """Write the file once; a failure is logged when it begins, not each time."""
        async with self._writing:
            await self._save()

    async def _save(self) -> None:
        last = self._events.last
        stored = Stored(self._boot, tuple(self._events.newest(MOST_SAVED)))
        try:
            # a lane of its own: a write that hangs here must not take a thread from the state file
            await call(lambda: save(self._directory, stored), "events")
        except OSError as error:
            if self._error is None:
                path = self._directory / NAME
                log.warning("events: %s cannot be written: %s; a restart forgets them", path, error)
            self._error = str(error)
            return
        if self._error is not None:
            log.info("events: written again")
        self._error, self._saved = None, last
