"""Backends that cannot tell a primary from a replica, where somebody meant to.

No check shows here what a backend is for, so its name has to say that it takes writes, or its port
that an agent was to be asked. What several poolers, load balancers or servers of another kind stand
behind is left alone, and so is a backend in which a person chooses: it has one server, or says which.
"""

import re
from collections.abc import Iterator

from healthagent.haproxy.finding import Finding, at_line, at_server, shown
from healthagent.haproxy.proxies import Proxy, Server
from healthagent.haproxy.topology import Role, Topology, check_path, looks_like_postgres, postgres_port

AGENT_PORT = "8008"
# 200 for a replica too, on healthagent and on Patroni.
EVERY_ROLE = frozenset(
    {"/health", "/liveness", "/readiness", "/read-only", "/read-only-sync", "/read-only-synchronous"}
    | {"/read-only-quorum", "/patroni", "/cluster", "/history", "/status", "/metrics"}
)
POOLER_PORT = 6432

_BEFORE = r"(?:^|[^a-z]|pg|postgres|postgresql|psql|patroni|db)"
_AFTER = r"(?:$|[^a-z]|db|pg|postgres|node|server|backend)"
_WRITES = re.compile(
    rf"{_BEFORE}(?:primary|primaries|masters?|leaders?|writ(?:e|es|er|ers|able)|rw|readwrite){_AFTER}"
)
_POSTGRES = re.compile(r"(?:^|[^a-z])(?:pg|psql|postgres|patroni)")
_OTHERS = re.compile(  # reads too, or no PostgreSQL of its own
    r"replica|standby|slave|secondar|follower|read[-_.]?only"
    rf"|{_BEFORE}(?:ro|reads?(?![-_.]?writ)|readers?){_AFTER}"
    r"|bouncer|pgpool|pooler|pgcat|odyssey|agroal|proxy|multi[-_.]?master|bdr|cockroach|yugabyte"
)
_FIX = "use `option httpchk OPTIONS /primary` (or /replica) with `check port 8008`"


def role_traps(topology: Topology) -> Iterator[Finding]:
    """Find the backends whose check cannot tell who is primary."""
    for proxy in topology.proxies:
        if topology.roles.get(proxy.name) is Role.WRITES or proxy.mode != "tcp" or not proxy.has_servers:
            continue
        if sum(server.count for server in proxy.servers if _can_be_chosen(server)) < 2:
            continue
        if proxy.lines("use-server"):
            continue
        check = "connect" if proxy.check is None else proxy.check.words[1]
        if check == "pgsql-check":
            yield from _asks_postgres(proxy)
        elif check == "httpchk":
            yield from _asks_for_every_role(topology, proxy)
        elif check == "connect" or (check == "tcp-check" and not proxy.lines("tcp-check", "expect")):
            yield from _only_connects(topology, proxy)


def _asks_postgres(proxy: Proxy) -> Iterator[Finding]:
    if proxy.check is not None and looks_like_postgres(proxy):
        yield at_line(
            proxy,
            proxy.check,
            "`option pgsql-check` chooses among several servers",
            "it cannot tell a primary from a replica, and is content with a role that does not exist",
            _FIX,
        )


def _asks_for_every_role(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    check = proxy.http_check
    if check is not None and EVERY_ROLE.issuperset(map(check_path, check.paths)) and _writes(topology, proxy):
        yield at_line(
            proxy,
            check.line,
            f"asks `{shown(check.paths[0])}`, and takes writes by its name",
            "a replica answers 200 there too, so writes go to every node",
            "ask for /primary: `option httpchk OPTIONS /primary`",
        )


def _only_connects(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    writes = _writes(topology, proxy)
    asks_agents = _is_postgres(proxy) and any(
        server.settings.get("port") == AGENT_PORT for server in proxy.servers
    )
    by_dns = any(server.template for server in proxy.servers)  # the name may be that of the primary only
    if not (asks_agents or (writes and not by_dns)):
        return
    server = next((one for one in proxy.servers if "check" in one.settings), proxy.servers[0])
    what = "is checked by a connect alone, without `option httpchk`"
    if "check" not in server.settings:
        what, why = "has no `check`", "it is UP for ever, whatever its role"
    elif "agent-check" in server.settings:
        why = "an agent that hangs takes connections too, and is silent on the agent-check: no opinion, so UP"
    elif asks_agents:
        why = "an agent that says no takes connections too, so every node is UP whatever its role"
    else:
        why = "a replica takes connections too, so writes go to every node"
    yield at_server(proxy, server, what, why, _FIX)


def _can_be_chosen(server: Server) -> bool:
    """Say whether it may get connections without a person's doing, by no other server's check."""
    settings = server.settings
    if "disabled" in settings or "track" in settings or settings.get("weight") == "0":
        return False
    return "check" in settings or "backup" not in settings  # without a check it is the others' spare for ever


def _writes(topology: Topology, proxy: Proxy) -> bool:
    """Say whether its name, or that of a listener that leads nowhere else, says that it takes writes."""
    if not _is_postgres(proxy):
        return False
    own = _words(proxy.name)
    if _OTHERS.search(own):
        return False
    leading = [
        one for one in topology.listeners.get(proxy.name, ()) if one.section.line in topology.single_minded
    ]
    names = [own, *(name for one in leading if not _OTHERS.search(name := _words(one.name)))]
    return any(_WRITES.search(name) for name in names)


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _is_postgres(proxy: Proxy) -> bool:
    """Say whether its servers are PostgreSQL, by their ports, or by its name where those are unknown."""
    named = _POSTGRES.search(proxy.name.lower()) is not None
    return all(named if server.port is None else _postgres_port(server) for server in proxy.servers)


def _postgres_port(server: Server) -> bool:
    """Say whether its port is one of PostgreSQL's, or a pooler's on a node whose agent is asked."""
    if server.port == POOLER_PORT:
        return server.settings.get("port", str(POOLER_PORT)) != str(POOLER_PORT)
    return postgres_port(server.port)
