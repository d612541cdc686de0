"""Ports for servers on loopback."""

import random
import socket
from pathlib import Path

_given: set[int] = set()  # several are chosen before the first of them is in use
_ours = slice(None)  # of all candidates


def share(number: int, processes: int) -> None:
    """Keep to a part of the ports from now on: processes side by side then never choose the same one."""
    global _ours
    _ours = slice(number, None, processes)


def free_port() -> int:
    """A loopback TCP port, another one each time, that stays free of other programs' outgoing connections.

    Not `bind(0)`: that yields a port of the ephemeral range, which any outgoing connection may take
    between a server's stop and its restart.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(10_000, ephemeral) if ephemeral > 12_000 else range(ephemeral, 60_000)
    while True:
        port = random.SystemRandom().choice(
            candidates[_ours]
        )  # not the shared generator: hypothesis seeds that one
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
