"""A PCP server in this process that answers with bytes from a script, for what a real pgpool never sends."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from healthagent.pgpool.pcp import Endpoint

Script = Mapping[str, bytes | Sequence[bytes] | Callable[[bytes], Sequence[bytes]]]

SALT = b"\xb7\xe5b\xf6"


def frame(kind: str, *words: str | bytes, raw: bytes = b"") -> bytes:
    """A frame of NUL-ended strings, spelled here a second time on purpose."""
    body = b"".join((word.encode() if isinstance(word, str) else word) + b"\0" for word in words) + raw
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


LOGIN: dict[str, bytes] = {"M": frame("m", raw=SALT), "R": frame("r", "AuthenticationOK")}


class Recorded(list[bytes]):
    """The requests that arrived, type and body."""


@asynccontextmanager
async def pcp_server(script: Script) -> AsyncIterator[tuple[Endpoint, Recorded]]:
    """Answer each type of request as the script says: bytes, one chunk at a time, or a function of the body.

    An unknown type closes the connection, as does an empty chunk.
    """
    requests = Recorded()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
                requests.append(head[:1] + body)
                answer = {**LOGIN, **script}.get(head[:1].decode(), b"")
                if callable(answer):
                    answer = answer(body)
                for chunk in [answer] if isinstance(answer, bytes) else answer:
                    if not chunk:
                        return
                    writer.write(chunk)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has what it wanted, or gave up
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield Endpoint(host, port, user="pcp", password="secret"), requests
    finally:
        server.close()
