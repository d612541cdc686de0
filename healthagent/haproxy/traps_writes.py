"""Traps on the way of a write: sessions that outlive their primary, and writes that reach two nodes.

The figures in the sentences were measured with HAProxy 2.6 on loopback.
"""

from collections.abc import Callable, Iterator

from healthagent.haproxy.finding import Finding, at_line, at_server, shown
from healthagent.haproxy.guard import leads_elsewhere
from healthagent.haproxy.proxies import Proxy, Server, duration
from healthagent.haproxy.topology import Topology

LONGEST_WINDOW = 3.0  # seconds from a 503 to DOWN; the tutorial's 9 s meant 7 s of writes to the old primary
LONGEST_HOLD = 3600.0  # seconds: below it a name service's bad hour takes servers into maintenance

_SHUTDOWN = "shutdown-sessions"


def keeps_sessions(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """Without on-marked-down the sessions of a demoted node go on."""
    if proxy.name not in topology.tallies:
        yield from _first(
            proxy,
            lambda server: server.settings.get("on-marked-down") != _SHUTDOWN,
            "has no `on-marked-down shutdown-sessions`",
            "open sessions stay on a node that stopped being primary until they end by themselves",
            f"add `default-server on-marked-down {_SHUTDOWN}` above the servers",
        )


def slow_to_notice(_: Topology, proxy: Proxy) -> Iterator[Finding]:
    """A long inter or a high fall leaves writes on the old primary."""
    for server in proxy.servers:
        window = _window(server)
        if window is not None and window > LONGEST_WINDOW:
            yield at_server(
                proxy,
                server,
                f"takes up to {window:g} s from the first 503 to DOWN (inter + (fall - 1) x fastinter)",
                f"new writes go to the old primary for as long, and {LONGEST_WINDOW:g} s is already a lot",
                "use `inter 1s fastinter 200ms downinter 250ms fall 2 rise 1`",
            )
            return


def unguarded(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """Nothing refuses connections while two servers count as primary."""
    if proxy.name in topology.tallies or proxy.server_count < 2 or proxy.section.line in topology.refusing:
        return
    listeners = topology.listeners.get(proxy.name, [])
    open_ones = [
        one
        for one in listeners
        if one.section.line not in topology.refusing
        and not leads_elsewhere(one, proxy.name, topology.primary_names)
    ]
    if listeners and not open_ones:
        return
    for listener in open_ones or [proxy]:
        guard = f"tcp-request connection reject unless {{ nbsrv({shown(proxy.name)}) eq 1 }}"
        where = "to it" if listener.takes_clients else "to the frontend that leads here"
        yield Finding(
            listener.section.line,
            shown(listener.section.where()),
            f"sends writes to `{shown(proxy.name)}` without asking how many of its servers are UP",
            _overlap(proxy),
            f"add `{guard}` {where}",
        )


def blind_backup(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """A backup server is not counted by nbsrv()."""
    yield from _first(
        proxy,
        lambda server: "backup" in server.settings,
        "is a `backup` server",
        "nbsrv() does not count backup servers while another one is up, so a second primary goes unseen",
        "remove `backup`: the check decides who is primary",
    )


def drains_on_404(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """disable-on-404 drains instead of taking down."""
    line = proxy.last("http-check", "disable-on-404")
    if line is not None:
        yield at_line(
            proxy,
            line,
            "`http-check disable-on-404` answers a 404 with a drain",
            "a drained server keeps its sessions, and on-marked-down does not fire for it",
            "remove the line: a node that is no primary has to be DOWN",
        )


def stale_start(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """A state file from before a failover sends writes to the old primary."""
    line = proxy.last("load-server-state-from-file")
    if line is not None and line.words[1:2] != ("none",):
        yield at_line(
            proxy,
            line,
            "`load-server-state-from-file` starts with the states of an earlier time",
            "when the primary moved meanwhile, writes go to the old one until its checks fail (6 s measured)",
            "remove the line; `max-spread-checks 50` in global makes a start without it short",
        )


def unstable_names(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """Slots of a template are filled by each backend on its own."""
    if proxy.name in topology.gated or proxy.name in topology.tallies:
        yield from _first(
            proxy,
            lambda server: server.template,
            "is a `server-template` in a backend whose servers are matched by name with another backend's",
            "each backend fills its slots by itself, so the same name can be two different nodes",
            "write one `server` line per node with a name of its own, or drop the gate",
        )


def returns_unchecked(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """A server that lost its DNS name comes back UP without a check."""
    for server in proxy.servers:
        name = server.settings.get("resolvers")
        if name is None or server.settings.get("init-state") in ("down", "fully-down"):
            continue
        section = next(
            (one for one in topology.sections if one.kind == "resolvers" and one.name == name), None
        )
        if section is None:
            continue
        held = {
            line.words[1]: duration(line.words[2])
            for line in section.by_start.get(("hold",), [])
            if len(line.words) > 2
        }
        wanted = ("nx", "other", "refused", "timeout", "obsolete")
        short = [kind for kind in wanted if (held.get(kind, 0.0) or 0.0) < LONGEST_HOLD]
        if short:
            yield at_server(
                proxy,
                server,
                f"is resolved by `{shown(name)}`, which holds an address through "
                f"{', '.join(short)} for less than an hour",
                "a server without an address goes into maintenance and before HAProxy 3.1 comes back UP and"
                " unchecked: a replica that restarts counts as primary",
                f"set `hold {short[0]} 24d` and likewise for the others in `resolvers {shown(name)}`",
            )
            return


TRAPS = (
    keeps_sessions,
    slow_to_notice,
    unguarded,
    blind_backup,
    drains_on_404,
    stale_start,
    unstable_names,
    returns_unchecked,
)


def _window(server: Server) -> float | None:
    inter, fall = server.seconds("inter", 2.0), server.number("fall", 3)
    fastinter = server.seconds("fastinter", inter)
    if inter is None or fall is None or fastinter is None:
        return None
    return inter + (max(fall, 1) - 1) * fastinter


def _overlap(proxy: Proxy) -> str:
    rise, fall = proxy.servers[0].number("rise", 2), proxy.servers[0].number("fall", 3)
    if rise is not None and fall is not None and rise <= fall:
        return (
            f"with rise {rise} and fall {fall} a new primary can be UP before the old one is DOWN, and writes"
            " go to both; likewise at a start, when every server counts as UP"
        )
    return "two primaries, or a start at which every server counts as UP, get writes on both"


def _first(
    proxy: Proxy, trapped: Callable[[Server], bool], what: str, why: str, fix: str
) -> Iterator[Finding]:
    """Report the first server of a proxy that is in the trap: one finding tells it for all."""
    for server in proxy.servers:
        if trapped(server):
            yield at_server(proxy, server, what, why, fix)
            return
