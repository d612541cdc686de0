"""All that stands between a client and PostgreSQL, and all of it real: agents beside nodes, HAProxy in front.

nodes = start_cluster(places(3)).nodes
with agents_with_port(folder, nodes) as agents:
    front = Front(binary, Layout.GATE, nodes, agents, folder)
    with front.proxy:
        async with Writer(front.write_port) as writer: ...
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node, Place
from healthagent.haproxy.nodes import HaproxyNode
from healthagent.haproxy.options import Options
from healthagent.haproxy.render import render
from tests.bed.agent import Agent, together
from tests.bed.haproxy import Binary, Haproxy, socket_of

DRAIN = 3.0  # seconds, the agents' default
# As haproxy/README.md advises: a statement whose client HAProxy has cut must not be committed.
SETTINGS = {"client_connection_check_interval": "100ms"}

# Patroni's own, docs and extras/confd/templates/haproxy.tmpl; our addresses, a port and a socket of our own.
TUTORIAL = """\
global
    maxconn 100
    stats socket {socket} mode 600 level admin expose-fd listeners

defaults
    log global
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s

listen batman
    bind 127.0.0.1:{port}
    option httpchk
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
{servers}
"""


class Layout(StrEnum):
    """A configuration of HAProxy."""

    TUTORIAL = "Patroni's tutorial"
    SIMPLE = "simple.cfg"
    GATE = "haproxy.cfg"


def places(count: int) -> list[Place]:
    """Nodes of a cluster whose clients come through HAProxy."""
    return [Place(f"pg{number + 1}", settings=SETTINGS) for number in range(count)]


@contextmanager
def agents_with_port(folder: Path, nodes: Sequence[Node]) -> Iterator[list[Agent]]:
    """One agent beside each node, all peers of one another, with an agent-check port each."""
    agents = [Agent(folder, node, agent_check=True) for node in nodes]
    with together(agents):
        yield agents


class Front:
    """An HAProxy for these nodes, with a write port, below a folder of its own; not started yet.

    With `cuts` false it lacks `on-marked-down shutdown-sessions`.
    """

    def __init__(
        self,
        binary: Binary,
        layout: Layout,
        nodes: Sequence[Node],
        agents: Sequence[Agent],
        folder: Path,
        *,
        hard_stop_after: str = "30s",
        cuts: bool = True,
    ) -> None:
        self.layout = layout
        self.write_port = free_port()
        if layout is Layout.TUTORIAL:
            self.backend = "batman"
            text = TUTORIAL.format(
                socket=socket_of(folder),
                port=self.write_port,
                servers="\n".join(
                    f"    server {node.name} {node.host}:{node.port} maxconn 100 check port {agent.port}"
                    for node, agent in zip(nodes, agents, strict=True)
                ),
            )
        else:
            self.backend = "pg_primary"
            text = render(_servers(nodes, agents), self._options(folder))
            text = text.replace("hard-stop-after 30s", f"hard-stop-after {hard_stop_after}")
            if not cuts:
                text = text.replace(" on-marked-down shutdown-sessions", "")
        self.proxy = Haproxy(binary, text, folder)

    def _options(self, folder: Path) -> Options:
        return Options(
            simple=self.layout is Layout.SIMPLE,
            bind="127.0.0.1",
            write_port=self.write_port,
            read_port=free_port(),
            stats_port=free_port(),
            gate_port=free_port(),
            admin_socket=str(socket_of(folder)),
            user="",
        )


def _servers(nodes: Sequence[Node], agents: Sequence[Agent]) -> list[HaproxyNode]:
    return [
        HaproxyNode(node.name, node.host, node.port, agent.port, agent.check_port)
        for node, agent in zip(nodes, agents, strict=True)
    ]


def promote_foremost(standbys: Sequence[Node]) -> tuple[Node, Node]:
    """With the primary gone: promote the one of two that has received more, point the other at it; both."""

    def received(node: Node) -> int:
        [(lsn,)] = node.psql("SELECT pg_last_wal_receive_lsn() - '0/0'")
        return int(lsn)

    other, new = sorted(standbys, key=received)
    new.promote()
    other.follow(new)
    return new, other


def take_over(new: Node, other: Node) -> None:
    """Promote a standby while the primary lives, with the other standby moved to it before."""
    other.follow(new)
    new.wait_streaming(other)
    new.promote()
