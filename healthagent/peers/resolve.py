"""DNS off the event loop. The last good addresses are kept while the resolver is slow or away."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import replace

from aiohttp.abc import AbstractResolver, ResolveResult

from healthagent.core.conflict import spelled
from healthagent.core.model import Instant, Snapshot
from healthagent.offloop import call

KEPT_FOR = 10.0  # seconds until a name is looked up again, in the background
MOST_NAMES = 512  # known, and again as many being looked up


class Names(AbstractResolver):
    """Names to addresses; only the first look-up of a name is ever waited for."""

    def __init__(self, clock: Callable[[], Instant]) -> None:
        self._clock = clock
        self._known: dict[str, tuple[tuple[str, ...], Instant]] = {}
        self._pending: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """For aiohttp: raises OSError when a name has never resolved."""
        addresses = await self.addresses(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def addresses(self, host: str) -> tuple[str, ...]:
        """Every address of a name, or raises OSError when none was ever found."""
        self.refresh(host)
        known = self.known(host)
        if known:
            return known
        pending = self._pending.get(host)
        if pending is None:
            raise OSError(f"{host!r} is not looked up: {MOST_NAMES} names are already")
        # shielded: one caller's deadline must not take the look-up away from the others
        return await asyncio.shield(pending)

    def refresh(self, host: str) -> None:
        """Look a name up in the background if that is due; nobody waits."""
        if _is_address(host) or host in self._pending or len(self._pending) >= MOST_NAMES:
            return
        known = self._known.get(host)
        if known is None or self._clock() - known[1] > KEPT_FOR:
            pending = asyncio.create_task(self._look_up(host), name=f"resolve {host}")
            self._pending[host] = pending
            pending.add_done_callback(lambda task: self._done(host, task))

    def known(self, host: str) -> tuple[str, ...]:
        """What is known of a name now, without asking."""
        if _is_address(host):
            return (spelled(host),)
        found = self._known.get(host)
        return found[0] if found else ()

    def with_upstream(self, snapshot: Snapshot) -> Snapshot:
        """Add what the upstream's name resolves to here: a name means nothing to another machine."""
        receiver = snapshot.receiver
        if receiver is None or receiver.host is None:
            return snapshot
        self.refresh(receiver.host)
        return replace(snapshot, receiver=replace(receiver, addresses=self.known(receiver.host)))

    async def _look_up(self, host: str) -> tuple[str, ...]:
        try:
            found = await call(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM), "names")
        except ValueError as error:  # a peer may tell any name: a label too long, a zero byte
            raise OSError(f"{host!r} is no name: {error}") from None
        addresses = tuple(dict.fromkeys(spelled(str(entry[4][0])) for entry in found))
        while len(self._known) >= MOST_NAMES and host not in self._known:
            self._known.pop(next(iter(self._known)))
        self._known[host] = (addresses, self._clock())
        return addresses

    def _done(self, host: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        self._pending.pop(host, None)
        if not task.cancelled() and task.exception() is not None:
            known = self._known.get(host)
            if known is not None:  # not again at once: the old addresses are good for another while
                self._known[host] = (known[0], self._clock())

    async def close(self) -> None:
        for pending in self._pending.values():
            pending.cancel()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
