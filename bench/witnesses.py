"""Stand-ins for many witnesses on loopback, in one process: they say what real ones say, as often.

Real ones would each ask all the others too, and the machine would measure itself. Bytes are those of
HTTP, both ways, head and body, without TCP and IP.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from healthagent import __version__
from healthagent.wire import HighWaterSaid, Message, SightSaid, encode

INTERVAL = 0.5  # seconds, the default of peer.interval
LONGEST = 65536
OK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@dataclass
class Witness:
    """One stand-in: answers /peer on a port of its own."""

    name: str
    names: list[str]
    system_identifier: str
    port: int = 0
    passed: int = 0  # bytes between it and the agent
    incarnation: str = field(default_factory=lambda: str(uuid.uuid4()))

    def said(self, uptime: float) -> bytes:
        return encode(
            Message(
                cluster="main",
                name=self.name,
                incarnation=self.incarnation,
                version=__version__,
                uptime=uptime,
                serving=False,
                witness=True,
                hwm=[HighWaterSaid(self.system_identifier, 1)],
                reason="witness",
                detail="a witness has no PostgreSQL",
                sees=[SightSaid(name=name, heard=True) for name in self.names if name != self.name],
            )
        )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer every request of a connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                body = self.said(asyncio.get_running_loop().time())
                head = f"{OK}Content-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                self.passed += len(asked) + len(head) + len(body)
        writer.close()

    async def ask_for_ever(self, host: str, port: int) -> None:
        """Ask the agent as a peer does, on one connection."""
        question = f"GET /peer HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection(host, port, limit=LONGEST)
        try:
            while True:
                writer.write(question)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.passed += len(question) + len(head) + length
                await asyncio.sleep(INTERVAL)
        finally:
            writer.close()


@asynccontextmanager
async def witnesses(count: int, system_identifier: str) -> AsyncIterator[list[Witness]]:
    """Serve `count` of them until the end of the block."""
    names = ["pg1", *(f"w{number}" for number in range(count))]
    made = [Witness(name, names, system_identifier) for name in names[1:]]
    async with AsyncExitStack() as stack:
        for one in made:
            server = await asyncio.start_server(one.answer, "127.0.0.1", 0)
            stack.callback(server.close)
            one.port = server.sockets[0].getsockname()[1]
        yield made
