"""Which proxies of a configuration carry writes, which reads, and how clients reach them.

A role is read from the path that a backend's check asks for, since that is what decides who is
UP there. `/` is the primary check too, but half the world uses it for other things, so there it
takes a sign of PostgreSQL besides.
"""

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from healthagent.haproxy.guard import refuses_two_primaries
from healthagent.haproxy.proxies import Proxy, proxies
from healthagent.haproxy.syntax import Section

WRITE_PATHS = frozenset({"/primary", "/read-write", "/master", "/leader"})
_READ_WORDS = """
    /replica /read-only /synchronous /sync /asynchronous /async /quorum /read-only-sync
    /read-only-synchronous /read-only-quorum /standby-leader /standby_leader
"""
READ_PATHS = frozenset(_READ_WORDS.split())
ANY_ROLE_PATHS = frozenset({"/health", "/readiness"})
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT"})

_POSTGRES_NAME = re.compile(r"pg|postgres|patroni|primary|replica|master|leader", re.IGNORECASE)
# Where other software listens, also such as has a primary or a master; below 1024 PostgreSQL never does.
_OTHER_PORTS = frozenset({1433, 1521, 3306, 5672, 6379, 8080, 8443, 9092, 9200, 11211, 26379, 27017})
_PRIVILEGED = 1024
# The backend may be left out, also with its parentheses: then it is the proxy that asks.
_COUNTED = re.compile(r"\b(?:nbsrv(?:\(([^()]*)\))?(?![\w(])|srv_is_up\((?:([^()/]*)/)?[^()]*\))")


class Role(StrEnum):
    """What a backend's check asks for."""

    WRITES = "writes"
    READS = "reads"


@dataclass
class Topology:
    """A parsed configuration with the roles of its proxies."""

    sections: list[Section]
    proxies: list[Proxy]
    roles: dict[str, Role]
    gated: set[str]  # write backends that are checked through a frontend of this same file
    listeners: dict[str, list[Proxy]]  # backend name to those who lead clients there
    tallies: set[str]  # checked for the primary and counted by a rule, but no client is led there

    def writes(self) -> list[Proxy]:
        """Backends that carry writes."""
        return [proxy for proxy in self.primaries() if proxy.name not in self.tallies]

    def primaries(self) -> list[Proxy]:
        """Backends whose servers are UP when they are primary: with traffic, or as a tally only."""
        return [proxy for proxy in self.proxies if self.roles.get(proxy.name) is Role.WRITES]

    @cached_property
    def primary_names(self) -> frozenset[str]:
        """The backends whose count of UP servers is a count of primaries."""
        return frozenset(proxy.name for proxy in self.primaries())

    @cached_property
    def single_minded(self) -> frozenset[int]:
        """The first lines of those listeners that lead to one backend only."""
        led = Counter(one.section.line for listeners in self.listeners.values() for one in listeners)
        return frozenset(line for line, count in led.items() if count == 1)

    @cached_property
    def refusing(self) -> frozenset[int]:
        """The first lines of those proxies that let nobody through while two servers count as primary."""
        return frozenset(
            proxy.section.line for proxy in self.proxies if refuses_two_primaries(proxy, self.primary_names)
        )

    def with_role(self) -> list[Proxy]:
        """Backends that are recognised as PostgreSQL's."""
        return [proxy for proxy in self.proxies if proxy.name in self.roles]

    def section(self, kind: str) -> Section | None:
        """Return the first section of this kind."""
        return next((section for section in self.sections if section.kind == kind), None)


def understand(sections: list[Section]) -> Topology:
    """Find the roles of all proxies."""
    found = proxies(sections)
    roles = {proxy.name: role for proxy in found if (role := _role(proxy)) is not None}
    gates = _gates(found, {name for name, role in roles.items() if role is Role.WRITES})
    gated = {
        proxy.name
        for proxy in found
        if proxy.has_servers and proxy.http_check is not None and gates.intersection(proxy.http_check.ports)
    }
    roles |= dict.fromkeys(gated, Role.WRITES)
    listeners = _listeners(found)
    counted = _counted(found)
    tallies = {
        proxy.name
        for proxy in found
        if roles.get(proxy.name) is Role.WRITES and proxy.name in counted and not listeners.get(proxy.name)
    }
    return Topology(sections, found, roles, gated, listeners, tallies)


def looks_like_postgres(proxy: Proxy) -> bool:
    """Say whether anything besides the check path speaks for PostgreSQL."""
    if proxy.mode != "tcp" or any(_other_port(server.port) for server in proxy.servers):
        return False
    return _POSTGRES_NAME.search(proxy.name) is not None or any(
        postgres_port(server.port) or server.settings.get("port") == "8008" for server in proxy.servers
    )


def check_path(path: str) -> str:
    """Return the path that is asked for: no query, no trailing slash; a lone method means `/` was meant."""
    if path in METHODS:
        return "/"
    return path.partition("?")[0].rstrip("/") or "/"


def _role(proxy: Proxy) -> Role | None:
    check = proxy.http_check
    if not proxy.has_servers or proxy.mode != "tcp" or check is None:
        return None
    paths = {check_path(path) for path in check.paths}
    if paths & WRITE_PATHS:
        return Role.WRITES
    if paths & READ_PATHS:
        return Role.READS
    if not looks_like_postgres(proxy):
        return None
    if "/" in paths:
        return Role.WRITES
    return Role.READS if paths & ANY_ROLE_PATHS else None


def postgres_port(port: int | None) -> bool:
    """Say whether this port is usual for PostgreSQL or a pooler of it."""
    return port is not None and (5400 <= port <= 5499 or port == 6432)


def _other_port(port: int | None) -> bool:
    return port is not None and (port in _OTHER_PORTS or port < _PRIVILEGED)


def _gates(found: list[Proxy], primaries: set[str]) -> set[str]:
    """Return the ports of HTTP frontends of this file that answer by the count of primaries."""
    return {
        address.rpartition(":")[2]
        for proxy in found
        if proxy.section.kind == "frontend" and _mentions(proxy) & primaries
        for line in proxy.lines("bind")
        for address in ",".join(line.words[1:2]).split(",")
    }


def _counted(found: list[Proxy]) -> set[str]:
    return set().union(*(_mentions(proxy) for proxy in found if proxy.takes_clients))


def _mentions(proxy: Proxy) -> set[str]:
    """Return the backends whose servers the rules of this proxy count."""
    return {
        match[1] or match[2] or proxy.name
        for line in proxy.section.lines
        for word in line.words
        for match in _COUNTED.finditer(word)
    }


def _listeners(found: list[Proxy]) -> dict[str, list[Proxy]]:
    listeners: dict[str, list[Proxy]] = {}
    for proxy in found:
        if not proxy.takes_clients:
            continue
        targets = {line.words[1] for line in proxy.lines("use_backend") if len(line.words) > 1}
        default = proxy.last("default_backend")
        if default is not None and len(default.words) > 1:
            targets.add(default.words[1])
        if any("%[" in target for target in targets):  # chosen at run time: it may be any of them
            targets |= {other.name for other in found if other.has_servers}
        if proxy.has_servers and proxy.servers:
            targets.add(proxy.name)
        for target in targets:
            listeners.setdefault(target, []).append(proxy)
    return listeners
