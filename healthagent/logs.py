"""The log: one line each, for people or for machines."""

import json
import logging
import os
import sys
import time

from healthagent.config import LogSettings

SYSLOG_LEVELS = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
DEBUG = 7  # of syslog(3)


def log_to_stderr(settings: LogSettings) -> None:
    """Send our own log, and warnings of libraries, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    formatter: logging.Formatter = _Json() if settings.format == "json" else _Text()
    handler.setFormatter(_Journal(formatter) if _goes_to_a_journal() else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("healthagent").setLevel(settings.level.upper())


def _goes_to_a_journal() -> bool:
    """Whether standard error is the journal's, as systemd.exec(5) has it: not if it was redirected since."""
    found = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _Journal(logging.Formatter):
    """Lines with the level that sd-daemon(3) wants in front, so that `journalctl -p warning` finds them."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        level = next((n for lowest, n in SYSLOG_LEVELS if record.levelno >= lowest), DEBUG)
        return "\n".join(f"<{level}>{line}" for line in self._inner.format(record).splitlines())


class _Text(logging.Formatter):
    """One line, with the time in UTC; a journal adds its own."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")


class _Json(logging.Formatter):
    """One JSON object a line."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("kind", "ok", "reason"):
            if hasattr(record, name):
                line[name] = getattr(record, name)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
