"""Traps in how HAProxy asks the agents: checks that see nothing, come too late, or ask another question."""

from collections.abc import Iterator

from healthagent.haproxy.expects import takes_only_200
from healthagent.haproxy.finding import Finding, at_line, at_server, shown
from healthagent.haproxy.proxies import Proxy, Server
from healthagent.haproxy.topology import ANY_ROLE_PATHS, METHODS, Role, Topology, check_path

_STATIC_BALANCE = frozenset({"static-rr", "source", "uri", "url_param", "hdr", "rdp-cookie", "hash"})


def believes_redirects(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """Every 2xx and 3xx is healthy unless told otherwise, and being told may let through more."""
    if proxy.http_check is None:
        return
    expects = proxy.lines("http-check", "expect")
    if not expects:
        yield at_line(
            proxy,
            proxy.http_check.line,
            "has no `http-check expect status 200`",
            "every 2xx and 3xx counts as healthy, a redirect of a proxy in between too",
            "add `http-check expect status 200`",
        )
    elif not any(takes_only_200(line) for line in expects):
        yield at_line(
            proxy,
            expects[0],
            f"`{shown(' '.join(expects[0].words))}` is met by more than status 200",
            "an agent says yes with 200 only; whatever else answers there is believed too",
            "write `http-check expect status 200`",
        )


def asks_for_a_method(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """With one word after httpchk, that word is the path."""
    if proxy.http_check is not None:
        for path in proxy.http_check.paths:
            if path in METHODS:
                yield at_line(
                    proxy,
                    proxy.http_check.line,
                    f"`option httpchk {path}` asks for the path `{path}`",
                    "a single word is the path, the method stays OPTIONS, and no agent knows that path",
                    f"write `option httpchk {path} /primary`",
                )


def without_deadline(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """Without `timeout check` a hung agent is noticed after whole intervals."""
    if proxy.http_check is not None and proxy.last("timeout", "check") is None:
        yield at_line(
            proxy,
            proxy.http_check.line,
            "has no `timeout check`",
            "a check may last the whole `inter`, so a hung agent is DOWN only after fall x inter",
            "set `timeout check 500ms`, here or in defaults",
        )


def connect_outlasts_check(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """Before 3.3 the connect time-out stretches the check's."""
    check, connect = proxy.timeout("check"), proxy.timeout("connect")
    line = proxy.last("timeout", "connect")
    for server in proxy.servers:
        inter = server.seconds("inter", 2.0)
        if check is None or connect is None or inter is None or line is None:
            return
        if min(connect, inter) > check and "check" in server.settings:
            yield at_line(
                proxy,
                line,
                f"`timeout connect` {connect:g} s is longer than `timeout check` {check:g} s",
                "up to HAProxy 3.2, without the fix of June 2025, a check lasts as long as a connect may",
                "set `timeout connect` no higher than `timeout check`",
            )
            return


def never_checked(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """A server without `check` is UP for ever; an agent-check alone does not change that."""
    for server in proxy.servers:
        if "check" in server.settings or "track" in server.settings:
            continue
        alone = "agent-check" in server.settings
        yield at_server(
            proxy,
            server,
            "has an `agent-check` but no `check`" if alone else "has no `check`",
            "a silent agent is no opinion, so a node whose agent hangs stays UP for ever"
            if alone
            else "it is UP for ever, whatever its agent says",
            "add `check port 8008`",
        )
        return


def asks_postgres(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """Without a port of its own the HTTP check goes to PostgreSQL."""
    if proxy.http_check is None or proxy.http_check.ports:
        return
    for server in proxy.servers:
        port = server.settings.get("port")
        if "check" in server.settings and (port is None or port == str(server.port)):
            yield at_server(
                proxy,
                server,
                f"is checked on its own port {server.port if server.port is not None else ''}".rstrip(),
                "that is PostgreSQL, which does not speak HTTP: the server is never UP",
                "add `port 8008`, the agent's port",
            )
            return


def weight_rounds_to_zero(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """A percentage of a small weight is no weight at all."""
    for server in proxy.servers:
        weight = server.number("weight", 1)
        if _asks(server) == "replica" and weight is not None and weight < 100:
            yield at_server(
                proxy,
                server,
                f"has weight {weight} and an agent that answers with percentages",
                "each percentage is rounded down: 42% of 1 is 0, which takes the server out",
                "add `weight 100`",
            )
            return


def wrong_question(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """The agent port answers for the primary unless it is asked for the replica."""
    wanted = "primary" if topology.roles[proxy.name] is Role.WRITES else "replica"
    paths = proxy.http_check.paths if proxy.http_check is not None else ()
    any_role = ANY_ROLE_PATHS.issuperset(map(check_path, paths))
    for server in proxy.servers:
        if "agent-check" not in server.settings or "$" in server.settings.get("agent-send", ""):
            continue
        sent = server.settings.get("agent-send")
        if sent is not None and not sent.endswith("\n"):
            yield at_server(
                proxy,
                server,
                f"has an `agent-send` without a line feed at its end: `{shown(sent)}`",
                "the agent reads a line; HAProxy makes a line feed of \\n only in double quotes or bare",
                f'write `agent-send "{wanted}\\n"`',
            )
            return
        if not any_role and (_asks(server) or "primary") != wanted:
            yield at_server(
                proxy,
                server,
                f"asks the agent about the {'replica' if wanted == 'primary' else 'primary'}",
                f"this backend is checked for the {wanted}; asked nothing, the agent answers for the primary",
                f'write `agent-send "{wanted}\\n"`',
            )
            return


def weight_ignored(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """Some algorithms are computed once and take no changing weights."""
    line = proxy.last("balance")
    name = line.words[1].partition("(")[0] if line is not None and len(line.words) > 1 else ""
    hashed = proxy.last("hash-type")
    consistent = hashed is not None and "consistent" in hashed.words and name != "static-rr"
    if line is not None and name in _STATIC_BALANCE and not consistent:
        yield from (
            at_line(
                proxy,
                line,
                f"`balance {name}` does not take changing weights",
                "the agent lowers the weight of a lagging replica without effect",
                "use `balance leastconn` or `balance roundrobin`",
            )
            for server in proxy.servers[:1]
            if _asks(server) == "replica"
        )


def latched_maintenance(topology: Topology, proxy: Proxy) -> Iterator[Finding]:
    """`disabled` is undone by no check."""
    for server in proxy.servers:
        if "disabled" in server.settings:
            yield at_server(
                proxy,
                server,
                "starts `disabled`",
                "that is maintenance: its checks are off, and no check or agent takes it out again",
                "remove `disabled`; a node that may not serve says 503 itself",
            )
            return


TRAPS = (
    believes_redirects,
    asks_for_a_method,
    without_deadline,
    connect_outlasts_check,
    never_checked,
    asks_postgres,
    weight_rounds_to_zero,
    wrong_question,
    weight_ignored,
    latched_maintenance,
)


def check_traps(topology: Topology) -> Iterator[Finding]:
    """Find the traps in the checks of all backends of PostgreSQL."""
    for proxy in topology.with_role():
        for trap in TRAPS:
            yield from trap(topology, proxy)


def _asks(server: Server) -> str | None:
    """Return what the agent port is asked for, `primary` or `replica`; None if for neither."""
    if "agent-check" not in server.settings:
        return None
    word = server.settings.get("agent-send", "").strip()
    return word if word in ("primary", "replica") else None
