"""From what an operator wrote to what the core reads."""

import os
import socket

from healthagent.config import Settings
from healthagent.core.model import LagLimit
from healthagent.core.view import Policy


def policy_of(settings: Settings) -> Policy:
    """The rules' durations and choices."""
    return Policy(
        witness=settings.witness,
        max_age=settings.postgres.max_age,
        poll_interval=settings.postgres.interval,
        system_identifier=settings.system_identifier,
        demote_all=settings.on_conflict == "demote_all",
        demote_isolated=settings.isolation == "demote",
        isolation_after=settings.isolation_after,
        start_alone_after=settings.start_alone_after,
        takeover_after=settings.takeover_after,
        drain=settings.drain,
        round_max_age=settings.round_max_age,
        peer_max_age=settings.peer.max_age,
        peer_interval=settings.peer.interval,
        peer_timeout=settings.peer.timeout,
        expected_members=settings.discovery.expected if settings.discovery else None,
        durable=settings.state_dir is not None,
        lag_limit=LagLimit(settings.replica.max_lag, settings.replica.max_lag_time),
        grace=settings.replica.grace,
        hold=settings.replica.hold,
        require_primary=settings.replica.require_primary,
        no_load_balance=settings.tags.get("noloadbalance") is True,
    )


def address_of(settings: Settings) -> str | None:
    """host:port of this node's PostgreSQL as other nodes reach it."""
    if settings.witness:
        return None
    if settings.postgres.address is not None:
        return str(settings.postgres.address)
    host = socket.gethostname() if settings.listen.everywhere else settings.listen.host
    port = (settings.postgres.dsn.get("port") or os.environ.get("PGPORT") or "5432").split(",")[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_url(settings: Settings) -> str:
    """Where others reach this agent: by the host of its PostgreSQL where it listens on every address."""
    listen, address = settings.listen, address_of(settings)
    host = str(listen).rpartition(":")[0]
    if listen.everywhere and address is not None:
        host = address.rpartition(":")[0]
    return f"{'https' if settings.tls.cert else 'http'}://{host}:{listen.port}"
