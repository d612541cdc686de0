"""Ports for servers: free, and not taken by an outgoing connection meanwhile."""

import socket
from pathlib import Path

from healthagent.demo.ports import free_port


def test_a_port_is_free_and_outside_the_range_of_outgoing_connections() -> None:
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = free_port()
    assert 10_000 <= port < first_ephemeral
    with socket.create_server(("127.0.0.1", port)):
        assert all(free_port() != port for _ in range(100))


def test_no_port_is_given_twice() -> None:
    assert len({free_port() for _ in range(500)}) == 500
