"""HAProxy's agent-check: one question, one line, over TCP.

HAProxy sends `agent-send` and reads a line of words, parted by blanks, tabs or commas; see
`agent-check` in its configuration manual. No answer means "no news" to it, never "down":
httpchk is the gate, this makes a refusal act within `agent-inter` and puts its reason on the
stats page. `maint`, `drain` and `ready` are never said: they would latch in HAProxy, beyond
what this agent's next word could undo.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import cast

from healthagent.board import Board
from healthagent.callers import Callers
from healthagent.clock import decided_now
from healthagent.core.model import Instant, Verdict
from healthagent.core.weight import weight
from healthagent.crowd import PATIENCE, Crowd
from healthagent.listening import Listening

WAIT = 0.1  # seconds for the question; an HAProxy without agent-send sends none
MAX_QUESTION = 256  # bytes
MAX_LINE = 255  # bytes of an answer, its end included


def answer(question: bytes, board: Board, now: Instant) -> bytes:
    """The line for a question. What is not understood is the stricter one, after a primary."""
    if question.partition(b"\n")[0].strip() == b"replica":
        verdict = board.replica(now)
        # the weight every time: HAProxy keeps the last one, a 1% too, through any number of plain "up"
        return f"up {weight(board.view(now), board.policy)}%\n".encode() if verdict.ok else _down(verdict)
    verdict = board.primary(now)
    return b"up\n" if verdict.ok else _down(verdict)


def _down(verdict: Verdict) -> bytes:
    """Spell a refusal. Without the blank before '#' HAProxy would take it all for one unknown word."""
    line = f"down #{verdict.reason}: {' '.join(verdict.detail.split())}"
    printable = "".join(letter if " " <= letter <= "~" else "?" for letter in line)
    return printable[: MAX_LINE - 1].encode() + b"\n"


class AgentCheck:
    """The TCP server. It needs no reaper: whoever is silent is answered after `WAIT`, and gone."""

    def __init__(
        self,
        board: Board,
        clock: Callable[[], Instant],
        connections: int,
        loop: asyncio.AbstractEventLoop,
        listening: Listening | None = None,
        callers: Callers | None = None,
    ) -> None:
        self.crowd: Crowd[Connection] = Crowd(connections, loop)
        self.callers = callers or Callers()
        self._board = board
        self._clock = clock
        self._loop = loop
        self.listening = listening or Listening(loop)

    async def listen(self, host: str | None, port: int) -> list[int]:
        """Answer on a TCP address; returns the ports, which the kernel chose when `port` is 0."""
        return await self.listening.tcp(self._connection, host, port, None, PATIENCE)

    async def adopt(self, client: socket.socket, read: bytes) -> None:
        """Go on with a predecessor's client, of whose question so much was read."""
        await self._loop.connect_accepted_socket(lambda: self._connection(read), client)

    def close(self) -> None:
        """Stop listening, and answer whoever has not asked yet.

        Stop the board first and leave HAProxy the time of an `agent-inter` to hear of it: a
        closed port is no news to it.
        """
        self.listening.close()
        for connection in self.crowd:
            connection.reply()

    def _connection(self, read: bytes = b"") -> "Connection":
        return Connection(self.crowd, self._answer, self._loop, self.callers, read)

    def _answer(self, question: bytes) -> bytes:
        return decided_now(partial(answer, question, self._board), self._clock)


class Connection(asyncio.BufferedProtocol):
    """One client: its question, as far as it is read, and the wait for it.

    Its end is never logged: HAProxy may reset the connection as soon as it has its line.
    """

    def __init__(
        self,
        crowd: Crowd["Connection"],
        answer_to: Callable[[bytes], bytes],
        loop: asyncio.AbstractEventLoop,
        callers: Callers,
        read: bytes = b"",
    ) -> None:
        self._callers = callers
        self.transport: asyncio.Transport | None = None
        self._crowd = crowd
        self._answer_to = answer_to
        self._loop = loop
        self._question = bytearray(read.ljust(MAX_QUESTION, b"\0"))
        self._read = len(read)
        self._wait: asyncio.TimerHandle | None = None
        crowd.expect(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its bases
        if not self._callers.let_in(transport):
            self._callers.refused += 1
            self.transport.abort()  # to HAProxy no news, as from a closed port
            return
        self._wait = self._loop.call_later(WAIT, self.reply)
        self._crowd.admit(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._question)[self._read :]

    def buffer_updated(self, nbytes: int) -> None:
        self._read += nbytes
        if self._read == MAX_QUESTION or b"\n" in self._question[: self._read]:
            self.reply()

    def eof_received(self) -> None:
        self.reply()

    @property
    def busy(self) -> bool:
        return self.transport is not None and self.transport.is_closing()

    def unanswered(self) -> tuple[int, bytes] | None:
        if self.transport is None or self.transport.is_closing():
            return None
        return self.transport.get_extra_info("socket").fileno(), bytes(self._question[: self._read])

    def reply(self) -> None:
        """Answer what has been asked so far, and close."""
        if self.transport is None or self.transport.is_closing():
            return
        try:
            self.transport.write(self._answer_to(bytes(self._question[: self._read])))
        finally:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._wait is not None:
            self._wait.cancel()
        self._crowd.forget(self)
