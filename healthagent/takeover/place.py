"""Where a successor finds the agent that runs: a Unix socket beside the state file, for its user alone."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "takeover.sock"
BACKLOG = 4
CREDENTIALS = struct.Struct("3i")  # ucred of socket(7): pid, uid, gid


class PlaceError(Exception):
    """The socket cannot be had; the text says which and why."""


def bind(directory: Path) -> socket.socket:
    """Listen there, in place of whoever did; connectable for this user alone from the first moment on."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    partial = f"{NAME}.{os.getpid()}"
    try:
        with _short(directory) as folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}/{partial}")
            listener.bind(f"{folder}/{partial}")
            os.chmod(f"{folder}/{partial}", 0o600)  # before it listens nobody can connect
            listener.listen(BACKLOG)
            os.rename(f"{folder}/{partial}", f"{folder}/{NAME}")
    except OSError as error:
        listener.close()
        raise PlaceError(f"{directory / NAME}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def connect(directory: Path) -> socket.socket | None:
    """A connection to the agent that runs with this state_dir; None when there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)  # a full backlog is an answer, not a wait
    try:
        with _short(directory) as folder:
            connection.connect(f"{folder}/{NAME}")
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise PlaceError(f"{directory / NAME}: {error.strerror or error}") from error
    return connection


def other_end(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end; the process is 0 when it lives in another PID namespace."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(raw)
    return int(pid), int(uid)


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """The folder under a name that fits: the address of a Unix socket has 107 bytes, a path more."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
