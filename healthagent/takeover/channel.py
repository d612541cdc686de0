"""Messages with descriptors between two agents of one machine, each under a wall budget. It blocks."""

import array
import asyncio
import contextlib
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from healthagent.takeover import messages
from healthagent.takeover.messages import Message, No
from healthagent.takeover.place import other_end

LENGTH = struct.Struct("!I")
MOST_BYTES = 64 * 1024 * 1024  # hundreds of peers are two of them
MOST_DESCRIPTORS = 200  # in one message; the kernel takes 253 (SCM_MAX_FD)
DEATH_WITHIN = 5.0  # seconds from the end of the file to the end of the process that held it

M = TypeVar("M", bound=Message)


class TakeoverFailed(Exception):
    """The other side does not do its part: too late, nonsense, or its end of the socket is closed."""


class Refused(TakeoverFailed):
    """One side says no; the text says why."""


class Gone(TakeoverFailed):
    """The process at the other end is dead."""


class Channel:
    """One conversation. Received descriptors stay in `descriptors`, in order, until somebody takes them."""

    def __init__(self, connection: socket.socket, death_within: float = 0.0) -> None:
        self.death_within = death_within  # seconds from a hang-up: only where it matters whether it died
        self.pid, self.uid = other_end(connection)
        self.descriptors: deque[int] = deque()
        self._socket = connection
        self._read = bytearray()
        self._pidfd = _pidfd(self.pid)

    def send(self, message: Message, within: float, descriptors: Sequence[int] = ()) -> None:
        """Send all of it within so many seconds, or raise TakeoverFailed."""
        assert len(descriptors) <= MOST_DESCRIPTORS, "the caller sends them in portions"
        body = messages.encode(message)
        frame = memoryview(LENGTH.pack(len(body)) + body)
        deadline = time.monotonic() + within
        try:
            self._socket.settimeout(within)
            sent = socket.send_fds(self._socket, [frame], list(descriptors))
            while sent < len(frame):
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                sent += self._socket.send(frame[sent:])
        except TimeoutError:
            raise TakeoverFailed(f"the other side does not read within {within:g} s") from None
        except OSError as error:
            raise self._ended(str(error.strerror or error)) from None

    def receive(self, kind: type[M], within: float) -> M:
        """The next message, which must be of this kind; Refused, Gone or TakeoverFailed otherwise."""
        message = self.receive_any(within)
        if not isinstance(message, kind):
            raise TakeoverFailed(f"want {kind.__name__}, got {type(message).__name__}")
        return message

    def receive_any(self, within: float) -> Message:
        """The next message but No."""
        deadline = time.monotonic() + within
        self._fill(LENGTH.size, deadline, within)
        (length,) = LENGTH.unpack(self._read[: LENGTH.size])
        if length > MOST_BYTES:
            raise TakeoverFailed(f"a message of {length} bytes")
        self._fill(LENGTH.size + length, deadline, within)
        body = bytes(self._read[LENGTH.size : LENGTH.size + length])
        del self._read[: LENGTH.size + length]
        try:
            message = messages.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TakeoverFailed(f"a message that this version cannot read: {error}") from None
        if isinstance(message, No):
            raise Refused(message.why)
        return message

    async def readable(self, within: float) -> None:
        """Wait, without blocking, until something can be received."""
        loop, found = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._socket.fileno(), found.set)
        try:
            async with asyncio.timeout(within):
                await found.wait()
        except TimeoutError:
            raise TakeoverFailed(f"no word of the other side within {within:g} s") from None
        finally:
            loop.remove_reader(self._socket.fileno())

    def say(self, message: Message) -> None:
        """Send it if that can be done at once; else the other side finds the end of the file."""
        with contextlib.suppress(TakeoverFailed):
            self.send(message, 0.5)

    def refuse(self, why: str) -> None:
        self.say(No(why))

    def is_dead(self, within: float) -> bool:
        """Whether the process at the other end ends within so many seconds; False also if nobody can tell."""
        if self._pidfd is None:
            return False
        watch = select.poll()
        watch.register(self._pidfd, select.POLLIN)
        return bool(watch.poll(round(within * 1000)))

    def take(self, count: int) -> list[socket.socket]:
        """The next so many sockets that came; TakeoverFailed when they did not."""
        if count > len(self.descriptors):
            raise TakeoverFailed(f"{len(self.descriptors)} descriptors instead of {count}")
        return [socket.socket(fileno=self.descriptors.popleft()) for _ in range(count)]

    def close(self) -> None:
        """Idempotent; what nobody took is closed too."""
        self._socket.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        while self.descriptors:
            os.close(self.descriptors.popleft())

    def _fill(self, size: int, deadline: float, within: float) -> None:
        while len(self._read) < size:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                found = self._receive_some()
            except TimeoutError:
                raise TakeoverFailed(f"no word of the other side within {within:g} s") from None
            except OSError as error:
                raise self._ended(str(error.strerror or error)) from None
            if not found:
                raise self._ended("it hung up without a word")
            self._read += found

    def _receive_some(self) -> bytes:
        room = socket.CMSG_LEN(MOST_DESCRIPTORS * array.array("i").itemsize)
        found, ancillary, flags, _ = self._socket.recvmsg(65536, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(data[: len(data) - len(data) % received.itemsize])
                self.descriptors.extend(received)
        if flags & socket.MSG_CTRUNC:
            raise TakeoverFailed("descriptors were lost: the limit of open files is too low")
        return found

    def _ended(self, why: str) -> TakeoverFailed:
        if self.is_dead(self.death_within):
            return Gone(f"process {self.pid} has ended")
        return TakeoverFailed(why)


def _pidfd(pid: int) -> int | None:
    """A handle of the process that no other one can inherit; None where the kernel gives none."""
    try:
        return os.pidfd_open(pid) if pid > 0 else None
    except OSError:
        return None
