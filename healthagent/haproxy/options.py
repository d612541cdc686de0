"""What a rendered HAProxy configuration can be told besides its nodes."""

import re
from collections import Counter
from dataclasses import dataclass

from healthagent.haproxy.nodes import address, is_ip, port_problems

# Nothing that HAProxy's own parser would cut or interpret: no blank, quote, backslash, # or $.
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:@%+=,-]{1,255}")


@dataclass(frozen=True)
class AgentTls:
    """How checks reach agents that answer over TLS. The agent-check port is always plain TCP."""

    ca_file: str | None  # None: any certificate is believed
    crt: str | None = None  # client certificate and key in one PEM file, for agents with `client_ca`


@dataclass(frozen=True)
class Options:
    """Ports, addresses and files of one configuration."""

    simple: bool = False
    bind: str = ""  # address of the write and read listeners; empty: all addresses
    write_port: int = 5000
    read_port: int = 5001
    stats_port: int | None = 7000  # of the stats page and /metrics; None: there are none
    gate_port: int = 8010
    admin_socket: str = "/run/haproxy/admin.sock"
    user: str = "haproxy"  # user and group of the worker; empty: whoever starts HAProxy
    tls: AgentTls | None = None
    nameserver: str | None = None  # HOST:PORT, or `resolv.conf`; None: names are resolved once, at the start

    def write_bind(self) -> str:
        """Address of the write listener."""
        return address(self.bind, self.write_port)

    def read_bind(self) -> str:
        """Address of the read listener."""
        return address(self.bind, self.read_port)


def option_problems(options: Options) -> list[str]:
    """Every reason why these options cannot be rendered, each as place: rule, value."""
    ports = {
        "--write-port": options.write_port,
        "--read-port": options.read_port,
    }
    if options.stats_port is not None:
        ports["--stats-port"] = options.stats_port
    if not options.simple:
        ports["--gate-port"] = options.gate_port
    problems = [problem for place, port in ports.items() for problem in port_problems(place, port)]
    for port, count in Counter(ports.values()).items():
        if count > 1:
            places = ", ".join(place for place, used in ports.items() if used == port)
            problems.append(f"{places}: each listener needs a port of its own, got {port} {count} times")
    if options.bind and not is_ip(options.bind):
        problems.append(f"--bind: must be an IP address of this machine, got {options.bind!r}")
    words = {"--admin-socket": options.admin_socket, "--user": options.user or "-"}
    if options.tls is not None:
        words |= {"--tls-ca": options.tls.ca_file or "-", "--tls-crt": options.tls.crt or "-"}
    if options.nameserver is not None:
        words["--nameserver"] = options.nameserver
    for place, word in words.items():
        if not _PLAIN_WORD.fullmatch(word):
            problems.append(f"{place}: must be without blanks, quotes, backslashes, # and $, got {word!r}")
    return problems
