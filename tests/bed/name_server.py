"""A DNS server on loopback that knows a few A records and can forget them."""

import asyncio
import struct
from types import TracebackType
from typing import Self

NXDOMAIN = 3
A = 1


class NameServer(asyncio.DatagramProtocol):
    """Answers A queries from `addresses` (a name that is not there: NXDOMAIN), others without a record.

    Wire format: RFC 1035 section 4.
    """

    def __init__(self, addresses: dict[str, str]) -> None:
        self.addresses = addresses
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._queries: dict[str, int] = {}
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._transport is not None, "it was entered"
        self._transport.close()

    async def asked(self, name: str, more: int, timeout: float = 60.0) -> None:
        """Wait until a name was asked for so many times more."""
        wanted = self._queries.get(name, 0) + more
        async with asyncio.timeout(timeout):
            while self._queries.get(name, 0) < wanted:
                self._news.clear()
                await self._news.wait()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None, "it was entered"
        labels, end = [], 12
        while data[end]:
            labels.append(data[end + 1 : end + 1 + data[end]].decode())
            end += 1 + data[end]
        end += 1
        name, question = ".".join(labels).lower(), data[12 : end + 4]
        kind = struct.unpack_from("!H", data, end)[0]
        self._queries[name] = self._queries.get(name, 0) + 1
        self._news.set()
        address = self.addresses.get(name)
        answer = b""
        if address is not None and kind == A:
            packed = bytes(int(part) for part in address.split("."))
            answer = struct.pack("!HHHIH", 0xC00C, A, 1, 1, 4) + packed
        flags = 0x8400 | (NXDOMAIN if address is None else 0)
        header = data[:2] + struct.pack("!HHHHH", flags, 1, 1 if answer else 0, 0, 0)
        self._transport.sendto(header + question + answer, addr)
