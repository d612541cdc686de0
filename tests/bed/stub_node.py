"""A stand-in for a PostgreSQL server behind HAProxy: sends its name, then holds the connection."""

import asyncio
from types import TracebackType
from typing import Self


class StubNode:
    """A TCP server on a loopback port that counts who came."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.connections = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            writer.write(f"{self.name}\n".encode())
            await reader.read()
        except OSError:
            pass  # cut by HAProxy, which is what these tests are about
        finally:
            writer.close()
