"""Where each member's PostgreSQL is, resolved: whom a replica follows is told by address."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from healthagent.board import Board
from healthagent.core.conflict import spelled
from healthagent.core.peer import Peer
from healthagent.peers.resolve import Names

EVERY = 2.0  # seconds
SOON = 0.2  # seconds until what was asked for the first time is looked at
POSTGRES = 5432


class Addresses:
    """Keeps the board's address book: `await addresses.run()`. No name that hangs delays the others."""

    def __init__(
        self,
        board: Board,
        names: Names,
        urls: Callable[[], Mapping[str, str]],
        configured: Mapping[str, str],
    ) -> None:
        self.board = board
        self.configured = configured  # of members' PostgreSQL by entry, where an operator gave them
        self._urls = urls  # of members' agents by entry, discovered ones too
        self._names = names

    async def run(self) -> None:
        self.look()
        await asyncio.sleep(SOON)
        while True:
            self.look()
            await asyncio.sleep(EVERY)

    def look(self) -> None:
        """Note every address that is known now, and have the others looked up."""
        urls = self._urls()
        book = {self.board.identity.name: self._own(urls.values())}
        for peer in self.board.peers.values():
            found = self._known(self._told(peer, urlsplit(urls.get(peer.name, "")).hostname))
            # one agent may be known under several addresses, by DNS or before and after a restart
            book[peer.label] = book.get(peer.label, frozenset()) | found
        self.board.addresses = book

    def _told(self, peer: Peer, host: str | None) -> list[str]:
        """Every host:port under which this member's PostgreSQL may be known."""
        reported = peer.statement.address if peer.statement else None
        configured = self.configured.get(peer.name)
        if reported is None:
            return [text for text in (configured, host and f"{host}:{POSTGRES}") if text]
        assumed = configured == f"{host}:{POSTGRES}"  # by the configuration's default: it knows better
        by_host = host and f"{host}:{_split(reported)[1]}"
        return [text for text in (reported, None if assumed else configured, by_host) if text]

    def _own(self, urls: Iterable[str]) -> frozenset[tuple[str, int]]:
        """Our own address as reported, and those of this machine that its peers reach."""
        reported = self.board.identity.address
        if reported is None:
            return frozenset()
        port = _split(reported)[1]
        found = set(self._known([reported, f"{socket.gethostname()}:{port}"]))
        for url in urls:
            local = _local_address(self._names.known(urlsplit(url).hostname or ""))
            if local is not None:
                found.add((local, port))
        return frozenset(found)

    def _known(self, hosts: list[str]) -> frozenset[tuple[str, int]]:
        found: set[tuple[str, int]] = set()
        for text in hosts:
            host, port = _split(text)
            self._names.refresh(host)
            found.update((address, port) for address in self._names.known(host))
        return frozenset(found)


def _local_address(towards: tuple[str, ...]) -> str | None:
    """The address that this machine has towards another: connecting a UDP socket sends nothing."""
    for address in towards:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        # OSError: no route, or a kernel without IPv6
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return spelled(str(probe.getsockname()[0]))
    return None


def _split(text: str) -> tuple[str, int]:
    """Host and port of host:port, whatever a peer may have told."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, POSTGRES
    known = port.isascii() and port.isdecimal() and len(port) <= 5
    return host.strip("[]"), int(port) if known else POSTGRES
