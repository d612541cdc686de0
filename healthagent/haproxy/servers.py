"""The `server` and `default-server` lines of one backend.

What most nodes share stands once on `default-server`; a server line says only where its node differs,
so that a reader sees the odd one.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from healthagent.haproxy.nodes import HaproxyNode, ServerTemplate, address, is_ip
from healthagent.haproxy.options import Options


def plain_lines(nodes: Sequence[HaproxyNode]) -> list[str]:
    """Server lines without anything of the agents: for a backend checked through the gate."""
    return [f"server {node.name} {address(node.host, node.pgport)}" for node in nodes]


def checked_lines(nodes: Sequence[HaproxyNode], options: Options, *, agent: bool) -> list[str]:
    """Server lines of a backend whose checks go to the agents themselves."""
    return [" ".join(_words(node, nodes, options, agent=agent)) for node in nodes]


def template_lines(template: ServerTemplate) -> list[str]:
    """Return the one line that stands for all nodes of a DNS name."""
    target = address(template.fqdn, template.pgport)
    return [f"server-template {template.prefix} {template.count} {target}"]


def check_defaults(http_port: int, timing: str, options: Options) -> list[str]:
    """`default-server` lines that say how the health check reaches the agents."""
    lines = [f"default-server check port {http_port} {timing}"]
    if options.tls is not None:
        believed = f"required ca-file {options.tls.ca_file}" if options.tls.ca_file else "none"
        crt = f" crt {options.tls.crt}" if options.tls.crt else ""
        lines.append(f"default-server check-ssl verify {believed}{crt}")
    return lines


def agent_defaults(nodes: Sequence[HaproxyNode], interval: str, question: str) -> list[str]:
    """`default-server` lines of the agent-check, or none when no node has one.

    The question stands in double quotes: HAProxy makes a line feed of \\n only there.
    """
    port = common_agent_port(nodes)
    if port is None:
        return []
    return [f'default-server agent-check agent-port {port} agent-inter {interval} agent-send "{question}\\n"']


def shared_agents(nodes: Sequence[HaproxyNode]) -> dict[str, list[HaproxyNode]]:
    """Return the nodes for which one agent-check would answer, by its address, where they are several.

    Whoever answers there speaks for one node only, so his word must not decide over the others.
    """
    found: dict[str, list[HaproxyNode]] = {}
    for node in nodes:
        if node.agent_port is not None:
            host = node.agent_host or node.http_host or node.host
            where = str(ipaddress.ip_address(host)) if is_ip(host) else host.lower().rstrip(".")
            found.setdefault(address(where, node.agent_port), []).append(node)
    return {where: sharing for where, sharing in found.items() if len(sharing) > 1}


def with_own_agents(nodes: Sequence[HaproxyNode]) -> list[HaproxyNode]:
    """Return the nodes, without an agent-check where they would share one."""
    sharing = {node.name for nodes in shared_agents(nodes).values() for node in nodes}
    return [replace(node, agent_port=None) if node.name in sharing else node for node in nodes]


def shared_lines(nodes: Sequence[HaproxyNode]) -> list[str]:
    """Comments that say which nodes have no agent-check because they would share one."""
    return [
        line
        for where, sharing in shared_agents(nodes).items()
        for line in (
            f"# No agent-check of {', '.join(node.name for node in sharing)}: each would be at {where}.",
            "# One agent's word must not decide over several nodes: give each agent a port of its own.",
        )
    ]


def common_http_port(nodes: Iterable[HaproxyNode]) -> int:
    """The port that most agents answer checks on."""
    return Counter(node.http_port for node in nodes).most_common(1)[0][0]


def common_agent_port(nodes: Iterable[HaproxyNode]) -> int | None:
    """The port that most agent-checks answer on, or None if no node has one."""
    ports = Counter(node.agent_port for node in nodes if node.agent_port is not None)
    return ports.most_common(1)[0][0] if ports else None


def _words(
    node: HaproxyNode, nodes: Sequence[HaproxyNode], options: Options, *, agent: bool
) -> Iterable[str]:
    yield f"server {node.name} {address(node.host, node.pgport)}"
    if node.http_host not in (None, node.host):
        yield f"addr {node.http_host}"
    if node.http_port != common_http_port(nodes):
        yield f"port {node.http_port}"
    http_host = node.http_host or node.host
    if options.tls is not None and options.tls.ca_file and not is_ip(http_host):
        # HAProxy compares a certificate with names only, never with an address.
        yield f"check-sni {http_host} verifyhost {http_host}"
    common = common_agent_port(nodes)
    if agent and common is not None:
        if node.agent_port is None:
            yield "no-agent-check"
        else:
            agent_host = node.agent_host or http_host
            if agent_host != http_host:  # the agent-check follows `addr` unless it is told otherwise
                yield f"agent-addr {agent_host}"
            if node.agent_port != common:
                yield f"agent-port {node.agent_port}"
