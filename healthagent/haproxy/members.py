"""The nodes of an HAProxy configuration, taken from an agent's own configuration."""

import os
from urllib.parse import urlsplit

from healthagent.config import Address, PeerEntry, Settings
from healthagent.haproxy.nodes import HaproxyNode, NodeError


def nodes_of(settings: Settings) -> list[HaproxyNode]:
    """Return this node and its data peers, by name, so that every node writes the same file.

    An entry of `peers` with this node's own name says how others reach it and is believed.
    Raises NodeError when the members are behind a DNS name.
    """
    if settings.discovery is not None:
        raise NodeError(
            "peers: HAProxy needs each node by name, got members behind a DNS name: use --node for each,"
            " or --simple with --server-template"
        )
    nodes = {peer.name: _peer(peer) for peer in settings.peers if not peer.witness}
    if not settings.witness:
        nodes.setdefault(settings.name, _this(settings))
    return [nodes[name] for name in sorted(nodes)]


def agents_use_tls(settings: Settings) -> bool:
    """Say whether checks have to speak TLS; raises NodeError when only some agents do."""
    secure = {peer.name: peer.url.startswith("https:") for peer in settings.peers if not peer.witness}
    if not settings.witness:
        secure.setdefault(settings.name, settings.tls.cert is not None)
    if len(set(secure.values())) > 1:
        plain = ", ".join(name for name, value in secure.items() if not value)
        raise NodeError(
            f"peers: one configuration checks all agents over https or none, got http for {plain}"
        )
    return any(secure.values())


def _peer(peer: PeerEntry) -> HaproxyNode:
    url = urlsplit(peer.url)
    assert url.hostname is not None, "the configuration always has one"
    assert url.port is not None, "the configuration always has one"
    postgres = peer.postgres or Address(url.hostname, 5432)
    agent_check = peer.agent_check or Address(url.hostname, 8009)
    return HaproxyNode(
        peer.name,
        postgres.host,
        postgres.port,
        url.port,
        agent_check.port,
        http_host=url.hostname,
        agent_host=agent_check.host,
    )


def _this(settings: Settings) -> HaproxyNode:
    listen = settings.listen
    http_host = settings.name if listen.everywhere else listen.host
    port = settings.postgres.dsn.get("port") or os.environ.get("PGPORT") or "5432"
    postgres = settings.postgres.address or Address(http_host, int(port))
    agent_check = settings.agent_check.listen
    agent_host = None
    if agent_check is not None and not agent_check.everywhere:
        agent_host = agent_check.host
    return HaproxyNode(
        settings.name,
        postgres.host,
        postgres.port,
        listen.port,
        None if agent_check is None else agent_check.port,
        http_host=http_host,
        agent_host=agent_host,
    )
