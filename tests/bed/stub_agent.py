"""A stand-in for an agent: says what it is told to say, to HTTP checks and to the agent-check.

It exists so that HAProxy configurations can be tried without a cluster. Tests of what a cluster does
use real agents.
"""

import asyncio
import ssl
from types import TracebackType
from typing import Self

LONGEST_REQUEST = 65536
PATIENCE = 5.0


class StubAgent:
    """Answers 200 or 503, and `up` or `down #stub`, on two loopback ports."""

    def __init__(
        self, *, role: str = "replica", agent_port: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self.role = role  # "primary", "replica" or "down"; may be changed at any time
        self.requests: list[str] = []  # request heads
        self.questions: list[bytes] = []  # what agent-check sent
        self.http_port = 0
        self.agent_port: int | None = None
        self._with_agent_port = agent_port
        self._tls = tls
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        http = await asyncio.start_server(self._http, "127.0.0.1", 0, ssl=self._tls, limit=LONGEST_REQUEST)
        self._servers.append(http)
        self.http_port = http.sockets[0].getsockname()[1]
        if self._with_agent_port:
            agent = await asyncio.start_server(self._agent, "127.0.0.1", 0)
            self._servers.append(agent)
            self.agent_port = agent.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.requests.append(head)
                path = head.split()[1]
                ok = path == f"/{self.role}"
                status = b"200 OK" if ok else b"503 Service Unavailable"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # HAProxy resets each check after the status line
        finally:
            writer.close()

    async def _agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                question = await reader.readline()
                self.questions.append(question)
                up = question.decode().strip() == self.role
                percent = b" 100%" if up and self.role == "replica" else b""
                writer.write(b"up" + percent + b"\n" if up else b"down #stub\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
