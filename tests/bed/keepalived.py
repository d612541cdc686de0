"""keepalived on hosts of the network, with our configuration, and who has the virtual address when.

keepalived = Keepalived(host, folder, configuration("http://10.99.0.1:8008"))
keepalived.start()
with Holders(network.hosts) as holders:
    holders.wait(["pg1"])
    assert holders.doubles() == []
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from healthagent.clock import boottime
from healthagent.demo.background import end, start, tail
from healthagent.demo.postgres import until
from tests.bed.network import SUBNET, Host

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "keepalived" / "keepalived.conf"
INSTALL = "apt-get install -y --no-install-recommends keepalived"
VIRTUAL = f"{SUBNET}.100"
LOOK_EVERY = 0.02  # seconds
AGENT_PROGRAM = f"{sys.executable} -m healthagent"


def program() -> str:
    """Where keepalived is; an AssertionError with the cure when it is nowhere."""
    found = shutil.which("keepalived", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    assert found, f"no keepalived: run `{INSTALL}`"
    return found


def configuration(url: str, user: str = "root", agent: str = AGENT_PROGRAM) -> str:
    """Our file for the agent at `url`, changed as a reader has to.

    Asked as root, unless another `user` is wanted: nobody else may be able to read the Python of a test.
    """
    text = CONFIGURATION.read_text()
    for words, instead in {
        "--reuid=healthagent --regid=healthagent": f"--reuid={user} --regid={user}",
        "/opt/healthagent/bin/healthagent": agent,
        "10.0.0.100/24": f"{VIRTUAL}/24",
        "http://127.0.0.1:8008": url,
    }.items():
        assert words in text, f"{CONFIGURATION} has no {words!r}"
        text = text.replace(words, instead)
    return text


class Keepalived:
    """One keepalived, to be started and ended as often as one likes."""

    def __init__(self, host: Host, folder: Path, text: str) -> None:
        self.log_file = folder / f"keepalived-{host.name}.log"
        file = folder / f"keepalived-{host.name}.conf"
        file.write_text(text)
        self._vrrp_pid = folder / f"keepalived-{host.name}.pid"
        self._command = [
            *host.prefix,
            *(program(), "--dont-fork", "--log-console", "--log-detail", "--vrrp", "-f", str(file)),
            *("-p", str(folder / f"keepalived-{host.name}-main.pid"), "-r", str(self._vrrp_pid)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = start(self._command, self.log_file)

    def stop(self) -> None:
        """SIGTERM, as systemd does it; idempotent."""
        if self._process is not None:
            end([self._process], patience=10.0)

    def kill(self) -> None:
        """It and its child are gone at once, and clean up nothing."""
        assert self._process is not None
        child = int(self._vrrp_pid.read_text())
        os.kill(child, signal.SIGSTOP)  # or it would clean up when it hears that its parent is gone
        for pid in (self._process.pid, child):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def log(self) -> str:
        return tail(self.log_file, 40)


class Holders:
    """Looks all the time who has the virtual address; a context manager."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts
        self._seen: list[tuple[float, list[str]]] = []  # (CLOCK_BOOTTIME, who had it), one for each change
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> list[str]:
        """Who has it."""
        return self._seen[-1][1] if self._seen else []

    def wait(self, names: Sequence[str], timeout: float = 30.0) -> None:
        """Wait until these have it and no other."""
        until(lambda: bool(self._seen) and self.now() == names, timeout, f"{names} have it, not {self.now()}")

    def history(self, since: float = 0.0) -> list[list[str]]:
        """Who had it, one after another."""
        return [names for at, names in self._seen if at >= since]

    def doubles(self) -> list[tuple[float, list[str]]]:
        """When more than one had it."""
        return [(at, names) for at, names in self._seen if len(names) > 1]

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            names = [host.name for host in self._hosts if _has(host, VIRTUAL)]
            if names != self.now() or not self._seen:
                self._seen.append((boottime(), names))


def _has(host: Host, address: str) -> bool:
    """Whether a host has an address: only then can one bind to it."""
    with host.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True
