"""Ports for servers: free, and not taken by an outgoing connection meanwhile."""

import socket
import subprocess
import sys
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


CHOOSE = """
from healthagent.demo import ports
ports.share({}, 2)
print(*(ports.free_port() for _ in range(2000)))
"""


def test_processes_side_by_side_share_the_ports_out() -> None:
    first, second = (
        set(subprocess.check_output([sys.executable, "-c", CHOOSE.format(number)]).split())
        for number in (0, 1)
    )
    assert len(first) == len(second) == 2000
    assert not first & second
