"""One log line per change of verdict, and how often each happened; never a line per poll."""

import logging
from collections import Counter

from .board import Board
from .core.model import Instant, Verdict

log = logging.getLogger(__name__)


class Journal:
    """Watches the verdicts and tells when one changes."""

    def __init__(self, board: Board) -> None:
        self.changes: Counter[tuple[str, str]] = Counter()  # (kind, reason)
        self._board = board
        self._last: dict[str, Verdict] = {}
        self._alarms: set[str] = set()

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
            log.info(
                "%s: %s %s: %s",
                kind,
                200 if verdict.ok else 503,
                verdict.reason,
                verdict.detail,
                extra={"kind": kind, "ok": verdict.ok, "reason": verdict.reason.value},
            )
        return changed

    def note_alarms(self, alarms: list[str]) -> None:
        """Log an alarm when it begins and when it ends."""
        present = set(alarms)
        for alarm in sorted(present - self._alarms):
            log.warning("%s", alarm)
        for alarm in sorted(self._alarms - present):
            log.info("no longer: %s", alarm)
        self._alarms = present
