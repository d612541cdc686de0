"""The nodes of a rendered HAProxy configuration, and what makes a set of them unusable.

HAProxy accepts almost any address at `haproxy -c`, so a bad one is found here, all complaints
at once, rather than as a server that never comes up.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_NODES = 64  # every write listener carries a rule per node, evaluated per connection

_SERVER_NAME = re.compile(r"[A-Za-z0-9._:-]{1,63}")  # what HAProxy's invalid_char() lets through
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True)
class HaproxyNode:
    """One PostgreSQL node as HAProxy reaches it."""

    name: str
    host: str
    pgport: int = 5432
    http_port: int = 8008
    agent_port: int | None = 8009  # None: no agent-check on this node
    http_host: str | None = None  # None: the agent answers on `host`
    agent_host: str | None = None  # None: the agent-check port is where the agent answers


@dataclass(frozen=True)
class ServerTemplate:
    """One DNS name that answers with the addresses of all nodes (a Kubernetes headless service)."""

    prefix: str
    fqdn: str
    count: int
    pgport: int = 5432
    http_port: int = 8008


class NodeError(ValueError):
    """A `--node` or `--server-template` value that cannot be read: place, rule, value."""


def parse_node(text: str) -> HaproxyNode:
    """Read `NAME=HOST:PGPORT,http=PORT,agent=PORT`; ports may be left out; `agent=none`: no agent-check."""
    name, host, pgport, settings = _split(text, "--node", {"http", "agent"})
    agent = settings.get("agent", "8009")
    return HaproxyNode(
        name,
        host,
        pgport,
        _port(settings.get("http", "8008"), f"--node {text!r}: http"),
        None if agent == "none" else _port(agent, f"--node {text!r}: agent"),
    )


def parse_template(text: str) -> ServerTemplate:
    """Read `PREFIX=FQDN:PGPORT,http=PORT,count=N`."""
    prefix, fqdn, pgport, settings = _split(text, "--server-template", {"http", "count"})
    count = settings.get("count", "3")
    if not (count.isascii() and count.isdigit() and 1 <= int(count) <= MAX_NODES):
        raise NodeError(
            f"--server-template {text!r}: count: must be a whole number from 1 to {MAX_NODES}, got {count!r}"
        )
    http_port = _port(settings.get("http", "8008"), f"--server-template {text!r}: http")
    return ServerTemplate(prefix, fqdn, int(count), pgport, http_port)


def node_problems(nodes: Sequence[HaproxyNode]) -> list[str]:
    """Every reason why these nodes cannot stand in one configuration, each as place: rule, value."""
    problems = []
    if not nodes:
        problems.append("nodes: at least one is needed, got none: name them with --node, or -c FILE")
    if len(nodes) > MAX_NODES:
        problems.append(f"nodes: at most {MAX_NODES} fit in one configuration, got {len(nodes)}")
    for node in nodes:
        problems.extend(_one_problems(node))
    problems.extend(_twice("name", (node.name for node in nodes)))
    problems.extend(_twice("PostgreSQL address", (address(node.host, node.pgport) for node in nodes)))
    problems.extend(
        _twice("agent address", (address(node.http_host or node.host, node.http_port) for node in nodes))
    )
    return problems


def template_problems(template: ServerTemplate) -> list[str]:
    """Every reason why a server template cannot be rendered."""
    return [
        *_name_problems("--server-template", template.prefix),
        *_host_problems(f"--server-template {template.prefix}: host", template.fqdn),
        *port_problems(f"--server-template {template.prefix}: PostgreSQL port", template.pgport),
        *port_problems(f"--server-template {template.prefix}: http", template.http_port),
    ]


def port_problems(place: str, port: int) -> list[str]:
    """Say why this is not a TCP port, or nothing."""
    return [] if 1 <= port <= 65535 else [f"{place}: must be a port from 1 to 65535, got {port}"]


def address(host: str, port: int) -> str:
    """Spell host and port as HAProxy reads them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(host: str) -> bool:
    """Say whether this host is an address, so that no name service is involved.

    A scope (`fe80::1%eth0`) is no address here: HAProxy does not read one.
    """
    if "%" in host:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _split(text: str, option: str, known: set[str]) -> tuple[str, str, int, dict[str, str]]:
    name, equals, rest = text.partition("=")
    target, *extras = rest.split(",")
    if not equals or not target:
        raise NodeError(f"{option} {text!r}: must be NAME=HOST:PORT with settings after commas, got {text!r}")
    settings = {}
    for extra in extras:
        key, equals, value = extra.partition("=")
        if key not in known or not equals or key in settings:
            wanted = " and ".join(sorted(known))
            raise NodeError(
                f"{option} {text!r}: settings: want {wanted}, each once as KEY=VALUE, got {extra!r}"
            )
        settings[key] = value
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", target)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    else:
        host, colon, port = target.partition(":")
        port = port if colon else None
        if ":" in (port or ""):
            raise NodeError(f"{option} {text!r}: host: an IPv6 address goes in brackets, got {target!r}")
    return name, host, _port("5432" if port is None else port, f"{option} {text!r}: port"), settings


def _port(text: str, place: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise NodeError(f"{place}: must be a port from 1 to 65535, got {text!r}")
    return int(text)


def _one_problems(node: HaproxyNode) -> Iterable[str]:
    place = f"node {node.name}"
    yield from _name_problems("node", node.name)
    yield from _host_problems(f"{place}: host", node.host)
    for key, host in (("http host", node.http_host), ("agent host", node.agent_host)):
        if host is not None:
            yield from _host_problems(f"{place}: {key}", host)
    yield from port_problems(f"{place}: PostgreSQL port", node.pgport)
    yield from port_problems(f"{place}: http", node.http_port)
    if node.agent_port is not None:
        yield from port_problems(f"{place}: agent", node.agent_port)


def _name_problems(place: str, name: str) -> Iterable[str]:
    if not _SERVER_NAME.fullmatch(name):
        yield f"{place} {name!r}: an HAProxy server name has 1 to 63 of A-Z a-z 0-9 . _ : -, got {name!r}"


def _host_problems(place: str, host: str) -> Iterable[str]:
    if not is_ip(host) and not _HOST_NAME.fullmatch(host):
        yield f"{place}: must be an IP address or a host name, got {host!r}"


def _twice(what: str, values: Iterable[str]) -> Iterable[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"nodes: each {what} may stand once, got {value!r} {count} times"
