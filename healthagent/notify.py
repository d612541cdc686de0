"""What the service manager is told: sd_notify(3), the protocol of systemd's Type=notify and WatchdogSec=.

One datagram of NAME=value lines to the Unix socket that NOTIFY_SOCKET names: an absolute path, or `@name` in
the abstract namespace. Telling never waits, and no failure of it harms an answer. What the manager must not
miss (READY=1 above all: without it a start fails) is kept and sent again until the socket takes it. The
watchdog is fed by what works, not by a timer of its own.
"""

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Self

from healthagent.core.model import Instant

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # meant for this process, not for its children
LOOK_EVERY = 0.1  # seconds between two looks at what there is to tell
SLACK = 2.0  # seconds that a poll may overrun its budget on a busy machine before it counts as stuck
MOST_KEPT = 16  # datagrams that wait for a full socket; the oldest are given up first
LONGEST_STATUS = 512  # bytes; systemctl shows one line

log = logging.getLogger(__name__)


class Notifier:
    """The way to the service manager; without an address every call does nothing.

    `address` and `watchdog` (seconds, None where it is off) may be handed to a process that takes our place:
    its own environment does not have them.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        self.address = address
        self.watchdog = watchdog
        self._target = None if address is None else _target(address)
        self._socket: socket.socket | None = None
        self._kept: deque[bytes] = deque(maxlen=MOST_KEPT)
        self._failing = False
        if address is not None and self._target is None:
            log.warning("NOTIFY_SOCKET: want an absolute path or @name, got %r: nobody is notified", address)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> Self:
        """As the service manager has started the process `pid`; a watchdog of another one does not count."""
        return cls(environment.get("NOTIFY_SOCKET") or None, _watchdog(environment, pid))

    def ready(self) -> None:
        """The start, or a reload, is over."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` must follow. Type=notify-reload (systemd 253) wants the instant."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def main_pid(self, pid: int) -> None:
        """Another process of the service is its main one from now on; only the present one is believed."""
        self._tell(f"MAINPID={pid}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`. It may quote others, so no second line is let through."""
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        self._kept = deque((kept for kept in self._kept if not kept.startswith(b"STATUS=")), MOST_KEPT)
        self._tell("STATUS=" + line.encode()[:LONGEST_STATUS].decode(errors="ignore"))

    def feed(self) -> None:
        """Feed the watchdog. Not kept when it cannot be sent: it speaks of this moment."""
        if not self._kept:
            self._send(b"WATCHDOG=1")

    def flush(self) -> None:
        """Send what the socket did not take before, in order."""
        while self._kept and self._send(self._kept[0]):
            self._kept.popleft()

    def close(self) -> None:
        """Give the socket back; idempotent, and the next message opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, message: str) -> None:
        if self._target is not None:
            self._kept.append(message.encode())
            self.flush()

    def _send(self, datagram: bytes) -> bool:
        if self._target is None:
            return True
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(datagram, self._target)
        except OSError as error:  # full (BlockingIOError), gone, or not a socket: the next look tries again
            if not self._failing:
                log.warning(
                    "the service manager cannot be notified at %s: %s", self.address, error.strerror or error
                )
            self._failing = True
            return False
        if self._failing:
            log.info("the service manager can be notified again")
        self._failing = False
        return True


def _target(address: str) -> str | bytes | None:
    """The address as the socket module wants it; None for a kind that we do not speak (vsock, say)."""
    if address.startswith("/"):
        return address
    return b"\0" + os.fsencode(address[1:]) if address.startswith("@") and len(address) > 1 else None


def _watchdog(environment: Mapping[str, str], pid: int) -> float | None:
    """WATCHDOG_USEC in seconds, if it is meant for the process `pid` and can be read; else None."""
    microseconds, owner = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(pid))
    if owner != str(pid) or not (microseconds.isascii() and microseconds.isdigit()):
        return None
    return int(microseconds) / 1e6 or None


class Watchdog:
    """When the watchdog may be fed: the rule alone, without clock or socket.

    `period` is that of the manager, in seconds; `budget` what one poll and the pause after it may take, None
    for a witness, which polls nothing. A poll that ends is progress however it ends: a dead PostgreSQL is no
    reason to restart the agent that reports it, a poller that is stuck is one.
    """

    def __init__(self, period: float | None, budget: float | None) -> None:
        self.budget = budget
        self._period = period
        self._progress_at: Instant | None = None
        self._fed_at: Instant = float("-inf")

    def progress(self, now: Instant) -> None:
        """A poll has ended."""
        self._progress_at = now

    def tried(self) -> bool:
        """Whether evidence has been looked for at least once: before, there is nothing to be ready with."""
        return self.budget is None or self._progress_at is not None

    def due(self, now: Instant) -> bool:
        """Whether to feed it now, and that it was: twice a period, and as soon as progress is made again."""
        if self._period is None or not self.tried() or now - self._fed_at < self._period / 2:
            return False
        if self.budget is not None and self._progress_at is not None:
            age = now - self._progress_at
            if age > self.budget + SLACK:
                return False
        self._fed_at = now
        return True


async def keep_notified(notifier: Notifier, watchdog: Watchdog, clock: Callable[[], Instant]) -> None:
    """Say READY=1 once evidence was tried, then feed the watchdog, for ever; begun when all ports listen.

    It runs on the loop that answers, so that a loop which is stuck feeds nothing.
    """
    ready = False
    while True:
        notifier.flush()
        if not ready and watchdog.tried():
            notifier.ready()
            ready = True
        if watchdog.due(clock()):
            notifier.feed()
        await asyncio.sleep(LOOK_EVERY)
