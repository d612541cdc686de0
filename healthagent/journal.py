"""One log line and one event per change of verdict, and how often each happened; never a line per poll."""

import logging
from collections import Counter

from msgspec import Struct

from healthagent.board import Board
from healthagent.core.forced import serving_elsewhere
from healthagent.core.model import Instant, Verdict
from healthagent.events import Events, Kind

AWAY = 10.0  # seconds until an alarm is over

log = logging.getLogger(__name__)


class Kept(Struct, frozen=True):
    """What was logged last."""

    verdicts: dict[str, Verdict]
    alarms: dict[str, Instant]


class Journal:
    """Watches the verdicts and tells when one changes."""

    def __init__(self, board: Board, events: Events) -> None:
        self.changes: Counter[tuple[str, str]] = Counter()  # (kind, reason)
        self._board = board
        self._events = events
        self._last: dict[str, Verdict] = {}
        self._alarms: dict[str, Instant] = {}  # logged, with the last moment at which each was there

    def kept(self) -> Kept:
        """What was logged last, for a successor that goes on with the same log."""
        return Kept(dict(self._last), dict(self._alarms))

    def go_on(self, kept: Kept) -> None:
        self._last, self._alarms = dict(kept.verdicts), dict(kept.alarms)

    def note(self, now: Instant) -> bool:
        """Compare the verdicts of this moment with the last ones; True when one changed."""
        verdicts = {"primary": self._board.primary(now), "replica": self._board.replica(now)}
        changed = False
        for kind, verdict in verdicts.items():
            last = self._last.get(kind)
            if last is not None and (last.ok, last.reason) == (verdict.ok, verdict.reason):
                continue
            self._last[kind] = verdict
            self.changes[kind, verdict.reason] += 1
            changed = True
            self._events.add(kind, now, ok=verdict.ok, reason=verdict.reason, detail=verdict.detail)
            log.info(
                "%s: %s %s: %s",
                kind,
                200 if verdict.ok else 503,
                verdict.reason,
                verdict.detail,
                extra={"kind": kind, "ok": verdict.ok, "reason": verdict.reason.value},
            )
        return changed

    def note_ends(self, now: Instant) -> None:
        """Tell when what an operator asked for has ended by itself."""
        board = self._board
        maintenance, override = board.operated
        if maintenance is not None and board.memory.maintenance is None:
            log.warning("maintenance is over: its time is up")
            self._events.add(Kind.MAINTENANCE, now, reason="over", detail="its time is up")
        if override is not None and board.memory.override is None:
            why = "its time is up" if now >= override.until else self._revoked(now)
            log.warning("override of /primary is over: %s", why)
            self._events.add(Kind.OVERRIDE, now, reason="over", detail=why)
        board.operated = (board.memory.maintenance, board.memory.override)

    def _revoked(self, now: Instant) -> str:
        other = serving_elsewhere(self._board.view(now), self._board.policy)
        return "PostgreSQL has changed its role or timeline" if other is None else f"{other} answers 200"

    def note_alarms(self, alarms: list[str], now: Instant) -> None:
        """Log an alarm when it begins, and when it has been away for a while: it may come with every poll."""
        for alarm in alarms:
            if alarm not in self._alarms:
                log.warning("%s", alarm)
                self._events.add(Kind.ALARM, now, reason="begin", detail=alarm)
            self._alarms[alarm] = now
        for alarm in [one for one, seen_at in self._alarms.items() if now - seen_at >= AWAY]:
            del self._alarms[alarm]
            log.info("no longer: %s", alarm)
            self._events.add(Kind.ALARM, now, reason="end", detail=alarm)
