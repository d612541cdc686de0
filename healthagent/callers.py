"""Who may ask for checks: everybody, or who calls from one of the networks that an operator has named.

What counts is the address that the connection comes from. A header that says otherwise (X-Forwarded-For)
is never believed: whoever can reach the port can write it.
"""

import asyncio
import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MOST_KNOWN = 4096  # addresses whose answer is remembered


class Callers:
    """The list that is in force; None admits everybody. This machine itself is always admitted."""

    def __init__(self, networks: Sequence[Network] | None = None) -> None:
        self.refused = 0  # agent-checks and requests, counted by who refuses
        self._known: dict[str, bool] = {}
        self._networks = networks

    def change(self, networks: Sequence[Network] | None) -> None:
        """Judge by another list from now on."""
        self._networks = networks
        self._known.clear()

    def let_in(self, transport: asyncio.BaseTransport | None) -> bool:
        """Whether who is at the other end of a connection may ask."""
        if self._networks is None or transport is None:
            return True
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not isinstance(peer, tuple):
            return True  # over a Unix socket
        return peer[0] == own[0] or self.admits(str(peer[0]))

    def admits(self, address: str) -> bool:
        """Whether an address may ask."""
        if self._networks is None:
            return True
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = self._known[address] = self._judge(address)
        return found

    def _judge(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        judged = mapped or address
        return judged.is_loopback or any(judged in network for network in self._networks or ())
