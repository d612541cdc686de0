"""A plain Patroni node as a peer: what its /patroni tells, in our words.

Source: patroni/api.py, `get_postgresql_status`. Such a node knows nothing of yielding, so
while it says primary and running it counts as serving, and as yielding to nobody.
"""

import msgspec
from msgspec import Struct

from healthagent.core.model import Instant, Reason, Role, Snapshot
from healthagent.core.peer import Source, Statement
from healthagent.wire import Lsn, Misunderstood, SystemIdentifier, Timeline, Word


class _Xlog(Struct, frozen=True):
    location: Lsn | None = None
    received_location: Lsn | None = None
    replayed_location: Lsn | None = None


class _Identity(Struct, frozen=True):
    name: Word = ""
    scope: Word = ""
    version: Word = ""


class _Ours(Struct, frozen=True):
    """Whatever it holds."""


class _Status(Struct, frozen=True):
    state: Word
    role: Word
    patroni: _Identity
    timeline: Timeline | None = None
    server_version: int = 0
    database_system_identifier: SystemIdentifier | None = None
    xlog: _Xlog | None = None
    healthagent: _Ours | None = None  # our own agents speak Patroni's JSON too


_decoder = msgspec.json.Decoder(_Status)
_PRIMARY = ("primary", "master", "promoted")  # master: before Patroni 4


def statement_from(body: bytes, name: str, asked_at: Instant, received_at: Instant) -> Statement:
    """Read /patroni of a Patroni node, or raise Misunderstood."""
    try:
        status = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misunderstood(f"neither an agent nor a Patroni node: {error}") from None
    if status.healthagent is not None:
        raise Misunderstood("an agent that does not take our questions")
    running = status.state == "running"
    primary = status.role in _PRIMARY
    xlog = status.xlog or _Xlog()
    snapshot = None
    if running:
        identifier = status.database_system_identifier
        snapshot = Snapshot(
            asked_at=asked_at,
            role=Role.PRIMARY if primary else Role.REPLICA,
            system_identifier=None if identifier is None else int(identifier),
            timeline=status.timeline,
            server_version=status.server_version,
            flush_lsn=xlog.location,
            received_lsn=xlog.received_location,
            replayed_lsn=xlog.replayed_location,
        )
    return Statement(
        asked_at=asked_at,
        received_at=received_at,
        source=Source.PATRONI,
        cluster=status.patroni.scope,
        name=name,
        incarnation=f"patroni {name}",
        started_at=asked_at,
        snapshot=snapshot,
        reason=Reason.PRIMARY if primary and running else Reason.NOT_PRIMARY,
        serving=primary and running,
        version=status.patroni.version,
        detail=f"Patroni says {status.role}, {status.state}",
    )
