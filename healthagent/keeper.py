"""Keeping the state file current, off the event loop: answers never wait for a disk."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from healthagent.board import SAVE_SERVED_EVERY, Board
from healthagent.core.memory import raise_high_water
from healthagent.core.model import Instant, Snapshot
from healthagent.core.view import Memory
from healthagent.offloop import call
from healthagent.statefile import StateError, Stored, Switch, save, stored_of

log = logging.getLogger(__name__)
MOST_SWITCHES = 100
PROMPT = 1.0  # seconds in which a disk that is well has written the file
AGAIN_AFTER = 1.0  # seconds, after a write that failed
LOOK_EVERY = 0.05  # seconds: the first 200 of a timeline waits for this, then for the disk


class Kept(Struct, frozen=True):
    """What is in the file, and what follows a timeline switch, for a successor."""

    stored: Stored | None
    history: tuple[Switch, ...]
    timeline: int | None
    lsn: int


class Keeper:
    """Saves what must survive a restart whenever it differs from what was saved."""

    def __init__(
        self,
        board: Board,
        directory: Path,
        boot: str,
        clock: Callable[[], Instant],
        stored: Stored | None,
    ) -> None:
        self.board = board
        self.error: str | None = None  # of the last attempt, for /status and the alarms
        self.history: list[Switch] = list(stored.history) if stored else []
        self._directory = directory
        self._boot = boot
        self._clock = clock
        self._stored = stored
        self._writing = asyncio.Lock()  # the last write, at the end, may meet one that is under way
        self._written = asyncio.Event()  # set for who waits at that moment only
        self._timeline: int | None = None
        self._lsn = 0

    def follow(self, snapshot: Snapshot, leader: str | None) -> None:
        """Note a timeline switch of this node, for /history."""
        if snapshot.timeline is None:
            return
        if self._timeline is not None and snapshot.timeline > self._timeline:
            # as PostgreSQL's own history has it: what a node rewound from is not how it came to be here
            self.history[:] = [switch for switch in self.history if switch.timeline < self._timeline]
            self.history.append(
                Switch(
                    timeline=self._timeline,
                    lsn=self._lsn,
                    reason="timeline switch seen by healthagent",
                    timestamp=datetime.now(UTC).isoformat(),
                    new_leader=leader or "",
                )
            )
            del self.history[:-MOST_SWITCHES]
        self._timeline = snapshot.timeline
        self._lsn = snapshot.wal_lsn or self._lsn

    @property
    def saving(self) -> bool:
        """Whether a write is under way."""
        return self._writing.locked()

    def kept(self) -> Kept:
        """What a successor that writes the same file goes on with."""
        return Kept(self._stored, tuple(self.history), self._timeline, self._lsn)

    def go_on(self, kept: Kept) -> None:
        """Take the place of the keeper that kept this."""
        self._stored, self._timeline, self._lsn = kept.stored, kept.timeline, kept.lsn
        self.history[:] = kept.history  # the answers hold this very list

    async def run(self) -> None:
        """Save for ever, whenever there is something to save."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._wanted(self._clock()) is not None:
                await self.save_now()
                if self.error is not None:
                    await asyncio.sleep(AGAIN_AFTER)

    async def why_unsaved(self) -> str | None:
        """Wait a moment until all that must survive a restart is in the file; why it is not by then."""
        try:
            async with asyncio.timeout(PROMPT):
                while self._wanted(self._clock()) is not None:
                    await self._written.wait()
        except TimeoutError:
            return self.error or f"the disk of {self._directory} has not answered for {PROMPT:g} s"
        return None

    async def save_now(self) -> None:
        """Write the state file once; the error is remembered, not raised."""
        async with self._writing:
            await self._save()

    async def _save(self) -> None:
        now = self._clock()
        memory = self._memory(now)
        wanted = self._stored_of(memory, now)
        try:
            await call(lambda: save(self._directory, wanted), "disk")
        except (StateError, OSError) as error:
            self.error = str(error)
            return
        self.error = None
        self._stored = wanted
        self.board.saved(memory, self._clock())
        self._written.set()
        self._written.clear()

    def _memory(self, now: Instant) -> Memory:
        """The board's memory, and the timeline that waits only for this before its first 200."""
        waiting = self.board.unsaved_service(now)
        memory = self.board.memory
        return memory if waiting is None else raise_high_water(memory, waiting, saved=False)

    def _stored_of(self, memory: Memory, now: Instant) -> Stored:
        cluster, history = self.board.identity.cluster, tuple(self.history)
        return stored_of(memory, cluster, self._boot, now, history, time.time())

    def _wanted(self, now: Instant) -> Stored | None:
        memory = self._memory(now)
        wanted = self._stored_of(memory, now)
        stored = self._stored
        if stored is None:
            return wanted
        if _without_instants(wanted) != _without_instants(stored):
            return wanted
        served, kept = wanted.served, stored.served
        overdue = served is not None and kept is not None and served.at - kept.at >= SAVE_SERVED_EVERY
        # what is left of it after a reboot is counted from here
        counting = (wanted.maintenance and wanted.maintenance.until) or wanted.override
        overdue = overdue or (counting is not None and now - stored.saved_at >= SAVE_SERVED_EVERY)
        return wanted if overdue else None


def _without_instants(stored: Stored) -> tuple[object, ...]:
    """What makes a save due at once. The instant of the last service, or of a rival's, does not."""
    served, conflict = stored.served, stored.conflict
    return (
        stored.boot_id,
        stored.high_water,
        None if served is None else replace(served, at=0),
        None
        if conflict is None
        else ([rival.candidate for rival in conflict.rivals], conflict.signals, conflict.winner),
        stored.yields_to,
        stored.forgiven,
        stored.maintenance,
        stored.override,
        stored.history,
    )
