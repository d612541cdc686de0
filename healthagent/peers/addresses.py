"""Where each member's PostgreSQL is, resolved: whom a replica follows is told by address."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..board import Board
from ..core.conflict import spelled
from .resolve import Names

EVERY = 2.0  # seconds
BUDGET = 5.0  # seconds for all look-ups of one pass


class Addresses:
    """Keeps the board's address book: `await addresses.run()`."""

    def __init__(
        self, board: Board, names: Names, urls: Mapping[str, str], configured: Mapping[str, str]
    ) -> None:
        self.board = board
        self.urls = urls  # of members' agents by entry
        self.configured = configured  # of members' PostgreSQL by entry, where an operator gave them
        self._names = names

    async def run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BUDGET):
                    self.board.addresses = await self._book()
            await asyncio.sleep(EVERY)

    async def _book(self) -> dict[str, frozenset[tuple[str, int]]]:
        book = {self.board.identity.name: await self._own()}
        for peer in self.board.peers.values():
            reported = peer.statement.address if peer.statement else None
            hosts = [reported, self.configured.get(peer.name)]
            port = _split(reported)[1] if reported else 5432
            url = urlsplit(self.urls.get(peer.name, ""))
            if url.hostname:
                hosts.append(f"{url.hostname}:{port}")
            book[peer.label] = await self._resolved([host for host in hosts if host])
        return book

    async def _own(self) -> frozenset[tuple[str, int]]:
        """Our own address as reported, and those of this machine that its peers reach."""
        reported = self.board.identity.address
        if reported is None:
            return frozenset()
        port = _split(reported)[1]
        found = set(await self._resolved([reported, f"{socket.gethostname()}:{port}"]))
        for url in self.urls.values():
            local = _local_address(self._names.known(urlsplit(url).hostname or ""))
            if local is not None:
                found.add((local, port))
        return frozenset(found)

    async def _resolved(self, hosts: list[str]) -> frozenset[tuple[str, int]]:
        found: set[tuple[str, int]] = set()
        for text in hosts:
            host, port = _split(text)
            with contextlib.suppress(OSError):
                found.update((address, port) for address in await self._names.addresses(host))
        return frozenset(found)


def _local_address(towards: tuple[str, ...]) -> str | None:
    """The address that this machine has towards another: connecting a UDP socket sends nothing."""
    for address in towards:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.connect((address, 9))
            return spelled(str(probe.getsockname()[0]))
    return None


def _split(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 5432
