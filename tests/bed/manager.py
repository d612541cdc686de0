"""The service manager's end of sd_notify: a datagram socket that keeps what it is told.

with Manager(tmp_path / "notify") as manager:
    Agent(tmp_path, node, environment=manager.environment(watchdog=2.0))
    manager.wait("READY=1")
"""

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from healthagent.clock import boottime
from healthagent.demo.postgres import until


class Manager:
    """Listens at a path, or at a name (`@name`) in the abstract namespace."""

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.told: list[tuple[float, str]] = []  # (CLOCK_BOOTTIME when it was read, one assignment)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def __enter__(self) -> Self:
        at = self.address
        self._socket.bind("\0" + at[1:] if at.startswith("@") else at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def environment(self, watchdog: float | None = None) -> dict[str, str]:
        """What a service is started with; `watchdog` is WatchdogSec."""
        found = {"NOTIFY_SOCKET": self.address}
        return found if watchdog is None else {**found, "WATCHDOG_USEC": str(round(watchdog * 1e6))}

    def read(self) -> list[str]:
        """Take in what has come; every assignment so far, in order."""
        while True:
            try:
                datagram = self._socket.recv(65536)
            except BlockingIOError:
                return [assignment for _, assignment in self.told]
            now = boottime()
            self.told += [(now, assignment) for assignment in datagram.decode().split("\n")]

    def count(self, assignment: str) -> int:
        return self.read().count(assignment)

    def states(self) -> list[str]:
        """What it was told about the service's state: neither the watchdog nor the words for people."""
        return [one for one in self.read() if not one.startswith(("STATUS=", "WATCHDOG=", "MONOTONIC_USEC="))]

    def statuses(self) -> list[str]:
        """The words for people, in order."""
        return [one.removeprefix("STATUS=") for one in self.read() if one.startswith("STATUS=")]

    def wait(self, assignment: str, times: int = 1, timeout: float = 30.0) -> None:
        """Wait until it was told this so often; TimeoutError."""
        until(lambda: self.count(assignment) >= times, timeout, f"{assignment} told {times} times")
