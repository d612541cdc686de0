"""Members found by DNS: every address of a name, or every target of an SRV record, is one.

The number of members is configured, since a resolver that knows fewer must not make a
majority out of a minority. An address that the resolver forgets is kept while it answers,
and for a while after that: what was last heard of it may still forbid something.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from healthagent.board import Board
from healthagent.config import Discovery
from healthagent.core.model import Instant
from healthagent.core.peer import Peer
from healthagent.peers.client import Entry, PeerClient
from healthagent.peers.resolve import Names

EVERY = 5.0  # seconds
BUDGET = 4.0  # seconds for one look-up
KEPT_FOR = (
    60.0  # seconds of silence until a forgotten address is dropped: longer than any drain that is sensible
)

log = logging.getLogger(__name__)


class Discoverer:
    """Keeps the list of peers current: `await discoverer.run()`."""

    def __init__(
        self,
        board: Board,
        client: PeerClient,
        discovery: Discovery,
        names: Names,
        clock: Callable[[], Instant],
    ) -> None:
        self.board = board
        self._client = client
        self._discovery = discovery
        self._names = names
        self._clock = clock
        self._error: str | None = None

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Look the name up once and take what it names; when that fails the last good list stays in force."""
        try:
            async with asyncio.timeout(BUDGET):
                found = await self._look_up()
        except TimeoutError:
            self._note("no answer in time")
        except OSError as error:
            self._note(str(error.strerror or error))
        else:
            self._note(None)
            self._take(found)

    @property
    def _name(self) -> str:
        return self._discovery.dns or self._discovery.srv or ""

    def _note(self, error: str | None) -> None:
        if error != self._error:
            if error is None:
                log.info("discovery: %s resolves again", self._name)
            else:
                log.warning("discovery: %s: %s", self._name, error)
        self._error = error

    async def _look_up(self) -> list[tuple[str, int]]:
        discovery = self._discovery
        if discovery.srv is not None:
            return await _targets(discovery.srv)
        return [(address, discovery.port) for address in await self._names.addresses(discovery.dns or "")]

    def _take(self, found: list[tuple[str, int]]) -> None:
        now, known = self._clock(), {entry.name: entry for entry in self._client.entries}
        entries = {}
        for host, port in sorted(found)[: 2 * self._discovery.expected]:
            spelled = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            entries[spelled] = Entry(spelled, f"{self._discovery.scheme}://{spelled}")
        for name, entry in known.items():
            if name in entries or self._is_forgotten(name, now):
                continue
            entries[name] = entry
        for name in list(entries)[3 * self._discovery.expected :]:
            del entries[name]
        if set(entries) == set(known):
            return
        self.board.replace_peers([replace(Peer(name), discovered=True) for name in entries], now)
        self._client.replace_entries(list(entries.values()))
        log.info("discovery: %s are now %s", self._name, ", ".join(entries) or "nobody")

    def _is_forgotten(self, name: str, now: Instant) -> bool:
        """Whether an address that the resolver does not name any more has been silent for long."""
        peer = self.board.peers.get(name)
        if peer is None or peer.statement is None or not peer.counts:
            return True
        return now - peer.statement.received_at > KEPT_FOR


async def _targets(name: str) -> list[tuple[str, int]]:
    # imported here: only those who use SRV records pay for it
    import dns.asyncresolver
    import dns.exception
    import dns.name
    import dns.rdtypes.IN.SRV

    try:
        answer = await dns.asyncresolver.resolve(name, "SRV", lifetime=BUDGET)
    except dns.exception.Timeout:
        raise TimeoutError from None
    except dns.exception.DNSException as error:
        # the class, since the text tells how long each server took: another one each time
        raise OSError(f"no SRV records: {type(error).__name__}") from None
    return [
        (record.target.to_text(omit_final_dot=True), record.port)
        for record in answer
        # RFC 2782: the target "." says that there is no such service
        if isinstance(record, dns.rdtypes.IN.SRV.SRV) and record.target != dns.name.root
    ]
