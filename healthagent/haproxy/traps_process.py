"""Traps of the whole process: how it starts, reloads, and whom it lets command it."""

from collections.abc import Iterator

from healthagent.haproxy.finding import Finding, at_line, shown
from healthagent.haproxy.proxies import duration
from healthagent.haproxy.topology import Topology

LONGEST_STOP = 300.0  # seconds for which an old process may keep sessions that nothing checks any more
LONGEST_SPREAD = 1.0  # seconds within which every server has had its first check

_LOCAL_SOCKETS = ("/", "unix@", "abns@", "fd@", "sockpair@")


def process_traps(topology: Topology) -> Iterator[Finding]:
    """Find the traps that belong to no single backend."""
    if topology.writes():
        yield from _endless_reload(topology)
        yield from _slow_start(topology)
    yield from _open_socket(topology)
    yield from _open_page(topology)


def _endless_reload(topology: Topology) -> Iterator[Finding]:
    line, where = _global(topology)
    found = _settings(topology, "hard-stop-after")
    if not found:
        yield Finding(
            line,
            where,
            "has no `hard-stop-after`",
            "after a reload the old process checks nothing: its sessions stay on the old primary until"
            " they end by themselves",
            "add `hard-stop-after 30s` to global",
        )
        return
    number, word = found[-1]
    limit = duration(word)
    if limit is not None and (limit == 0 or limit > LONGEST_STOP):
        yield Finding(
            number,
            where,
            f"`hard-stop-after` is {limit:g} s" if limit else "`hard-stop-after 0` is no limit",
            "after a reload the old process checks nothing: for as long its sessions stay on the old primary",
            "use `hard-stop-after 30s`",
        )


def _slow_start(topology: Topology) -> Iterator[Finding]:
    line, where = _global(topology)
    found = _settings(topology, "max-spread-checks")
    if not found:
        yield Finding(
            line,
            where,
            "has no `max-spread-checks`",
            "until its first check a server counts as UP, and first checks are spread over `inter`: with"
            " inter 3s a replica was sent writes for 2 s after a start",
            "add `max-spread-checks 50` to global",
        )
        return
    number, word = found[-1]
    spread = duration(word)
    if spread is not None and spread > LONGEST_SPREAD:
        yield Finding(
            number,
            where,
            f"`max-spread-checks` is {spread:g} s",
            "until its first check every server counts as UP and can be sent writes",
            "use `max-spread-checks 50`",
        )


def _open_socket(topology: Topology) -> Iterator[Finding]:
    for section in topology.sections:
        for line in section.by_start.get(("stats", "socket"), []) if section.kind == "global" else []:
            address = line.words[2] if len(line.words) > 2 else "/"
            if not address.startswith(_LOCAL_SOCKETS) and ("level", "admin") in zip(
                line.words, line.words[1:], strict=False
            ):
                yield Finding(
                    line.number,
                    "global",
                    f"`stats socket {shown(address)}` gives admin rights over TCP",
                    "there is no authentication: whoever reaches the port can send writes to any server",
                    "use a local socket, such as `stats socket /run/haproxy/admin.sock mode 660 level admin`",
                )


def _open_page(topology: Topology) -> Iterator[Finding]:
    for proxy in topology.proxies:
        line = proxy.last("stats", "admin")
        if line is not None and line.words[2:] == ("if", "TRUE") and not proxy.lines("stats", "auth"):
            yield at_line(
                proxy,
                line,
                "`stats admin if TRUE` without `stats auth`",
                "whoever opens the page can put servers into maintenance, which no check undoes",
                "add `stats auth USER:PASSWORD`, or remove `stats admin`",
            )


def _settings(topology: Topology, keyword: str) -> list[tuple[int, str]]:
    """Return line and value of a global setting; HAProxy allows several global sections."""
    return [
        (line.number, line.words[1])
        for section in topology.sections
        if section.kind == "global"
        for line in section.by_start.get((keyword,), [])
        if len(line.words) > 1
    ]


def _global(topology: Topology) -> tuple[int, str]:
    section = topology.section("global")
    return (section.line, "global") if section is not None else (1, "global (there is none)")
