"""Which processes belong to a PostgreSQL server, and how to be sure that all of them end.

A server is found by its command lines, not by parentage: after the postmaster is killed its
children belong to init, and a stopped child never notices that its postmaster is gone. The
postmaster carries its data directory in its arguments; its children show `cluster_name`, which
we set to the same unique words, in their titles. Command lines can be read without ptrace
rights, which root in a container often lacks for processes of another user.

Run as a program with a folder as argument, this file is the reaper of that folder: it waits until
its standard input closes, which happens however its parent ends (SIGKILL included), then ends
every server that lives in the folder and removes it. Hence no signal handlers and no atexit.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

POLL = 0.01  # seconds between two looks at /proc or a file
ROOM = 2 << 30  # bytes; a node takes some 60 MB, and up to 300 MB when it is written to


def server_pids(root: Path, name: str | None = None) -> set[int]:
    """The processes of the server `name` below `root` (None: of all there), with their descendants."""
    which = r"[^/:\0]+" if name is None else re.escape(name)
    ours = re.compile(rf"{re.escape(root.name)}/{which}(?=[/:\0])")
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            words = Path(entry.path, "cmdline").read_bytes().decode(errors="replace")
            parent = int(Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        pid = int(entry.name)
        parents[pid] = parent
        program = words.partition("\0")[0]
        if (program.endswith("/postgres") or program.startswith("postgres:")) and ours.search(words):
            found.add(pid)
    # archive_command and restore_command are shells below a server process.
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return found


def send(pids: Iterable[int], *signals: signal.Signals) -> None:
    """Send each signal to each process; one that has ended meanwhile is no error."""
    for pid in pids:
        try:
            for number in signals:
                os.kill(pid, number)
        except ProcessLookupError:
            continue


def end_servers(root: Path, name: str | None = None, patience: float = 5.0) -> None:
    """Shut the server(s) down at once, stopped processes too; after `patience` seconds, SIGKILL.

    SIGQUIT first, since a postmaster that handles it removes its shared memory segment.
    """
    deadline = time.monotonic() + patience
    send(server_pids(root, name), signal.SIGCONT, signal.SIGQUIT)
    while server_pids(root, name) and time.monotonic() < deadline:
        time.sleep(POLL)
    while left := server_pids(root, name):
        send(left, signal.SIGKILL)
        time.sleep(POLL)
    for data in root.glob(f"{name or '*'}/data"):
        remove_shared_memory(data)


def remove_shared_memory(data: Path) -> None:
    """Remove the System V segment that a killed postmaster left (its next start would do so too)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return  # a clean shutdown removes the file and the segment
    if len(lines) > 6 and len(segment := lines[6].split()) == 2:  # "key id", see PostgreSQL's miscadmin.h
        subprocess.run(["ipcrm", "-m", segment[1]], check=False, capture_output=True)


class Folder:
    """A temporary folder for servers. However this program ends, its reaper ends them and removes it."""

    def __init__(self) -> None:
        # Not below TMPDIR's private folders: the servers' user must reach it, and socket paths be short.
        self.path = Path(tempfile.mkdtemp(prefix="healthagent-", dir=_fastest()))
        self.path.chmod(0o711)
        command = [sys.executable, "-I", __file__, str(self.path)]
        # Out of our process group: Ctrl-C at the terminal is for us, and we tidy up first.
        self._reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def close(self) -> None:
        """End the servers in it and remove it; idempotent."""
        end_servers(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        self._reaper.communicate()  # closes its standard input: it finds nothing left to do, and exits


def _fastest() -> str:
    """Memory, where it has room (a container's /dev/shm is often 64 MB): copies of clusters load a disk."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM:
        return str(memory)
    return "/tmp"


def reap_after_parent(root: Path) -> None:
    """Wait for the end of standard input, then end the servers below `root` and remove it."""
    sys.stdin.buffer.read()
    end_servers(root)
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    reap_after_parent(Path(sys.argv[1]))
