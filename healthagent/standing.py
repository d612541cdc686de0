"""Where each member stands, as this agent sees it: for people, never for a decision.

The own verdicts are asked of the board at the moment; what the others are is what they said
themselves, while that is fresh. Unknown stays unknown and never looks like the last known.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from healthagent.board import Board
from healthagent.core.members import heard, snapshot_of
from healthagent.core.model import Instant, Lsn, Reason, Role, Snapshot
from healthagent.core.peer import Peer, Sight, Source
from healthagent.core.replica import lag_bytes, lag_seconds

SILENT = "silent"  # the word for a peer that is not heard; no reason of a verdict
UNASKED = "not_asked"  # an agent that tells nothing of its reads: a plain Patroni node


@dataclass(frozen=True, slots=True)
class Standing:
    """One member at one moment."""

    name: str
    entry: str  # its key in the configuration; an address where DNS found it
    own: bool = False
    witness: bool = False
    heard: bool = False
    role: Role | None = None
    timeline: int | None = None
    writes: bool | None = None  # None: unknown
    reads: bool | None = None
    reason: str = SILENT  # of the verdict that belongs to its role
    detail: str = ""  # one sentence, where there is one
    lag_bytes: int | None = None  # written by the primary and not yet replayed here
    lag_seconds: float | None = None
    age: float | None = None  # seconds since the question whose answer this is; None: never answered
    address: str | None = None  # host:port of its PostgreSQL
    upstream: str | None = None  # host:port that it streams from
    hears: tuple[Sight, ...] = ()  # what it says of the others


def standings(board: Board, now: Instant) -> list[Standing]:
    """Every member by name; entries that lead back to this agent are left out."""
    written = _written(board, now)
    found = [_own(board, now)]
    found += [_peer(peer, board, written, now) for peer in board.peers.values() if peer.counts]
    return sorted(found, key=lambda standing: standing.name)


def _own(board: Board, now: Instant) -> Standing:
    primary, replica = board.primary(now), board.replica(now)
    view, role, snapshot = board.view(now), board.role(now), board.local.snapshot
    verdict = replica if role is Role.REPLICA else primary
    fresh = snapshot if role is not None else None
    return Standing(
        name=board.identity.name,
        entry=board.identity.name,
        own=True,
        witness=board.policy.witness,
        heard=True,
        role=role,
        timeline=fresh.timeline if fresh else None,
        writes=primary.ok,
        reads=replica.ok,
        reason=verdict.reason,
        detail=verdict.detail,
        lag_bytes=lag_bytes(view, board.policy) if role is Role.REPLICA else None,
        lag_seconds=lag_seconds(view, board.policy) if role is Role.REPLICA else None,
        age=snapshot.age(now) if snapshot else None,
        address=board.identity.address,
        upstream=_upstream(fresh),
        hears=tuple(_sight(peer, board, now) for peer in board.peers.values() if peer.counts),
    )


def _peer(peer: Peer, board: Board, written: Lsn | None, now: Instant) -> Standing:
    statement, snapshot = heard(peer, now, board.policy), snapshot_of(peer, now, board.policy)
    role = snapshot.role if snapshot else None
    last = peer.statement
    known = Standing(
        name=peer.label,
        entry=peer.name,
        witness=peer.witness,
        role=role,
        timeline=snapshot.timeline if snapshot else None,
        reason=peer.alarm or SILENT,
        detail=peer.alarm_detail,
        lag_bytes=_lag(snapshot, written),
        age=None if last is None else now - last.asked_at,
        address=last.address if last else None,
        upstream=_upstream(snapshot),
    )
    if statement is None:
        return known
    reason, detail = str(statement.reason), statement.detail
    if role is Role.REPLICA:  # why it takes reads or not; it says that in one word
        reason, detail = statement.replica_reason or UNASKED, ""
    return Standing(
        name=known.name,
        entry=known.entry,
        witness=known.witness or statement.witness,
        heard=True,
        role=role,
        timeline=known.timeline,
        writes=statement.serving,
        # a Patroni node is not asked whether it takes reads
        reads=statement.replica_ok if statement.source is Source.AGENT else None,
        reason=reason,
        detail=detail,
        lag_bytes=known.lag_bytes,
        age=known.age,
        address=known.address,
        upstream=known.upstream,
        hears=statement.sees,
    )


def _sight(peer: Peer, board: Board, now: Instant) -> Sight:
    statement, snapshot = heard(peer, now, board.policy), snapshot_of(peer, now, board.policy)
    return Sight(
        peer.name,
        statement is not None,
        snapshot.role if snapshot else None,
        snapshot.timeline if snapshot else None,
        statement is not None and statement.serving,
    )


def _written(board: Board, now: Instant) -> Lsn | None:
    """How far the newest primary in sight has written."""
    found = [snapshot_of(peer, now, board.policy) for peer in board.peers.values()]
    if board.role(now) is Role.PRIMARY:
        found.append(board.local.snapshot)
    primaries = [one for one in found if one is not None and one.role is Role.PRIMARY]
    newest = max(primaries, key=lambda one: (one.timeline or 0, one.flush_lsn or 0), default=None)
    return newest.flush_lsn if newest else None


def _lag(snapshot: Snapshot | None, written: Lsn | None) -> int | None:
    if snapshot is None or snapshot.role is not Role.REPLICA:
        return None
    known = [written, snapshot.receiver.latest_end_lsn if snapshot.receiver else None]
    reached = [lsn for lsn in known if lsn is not None]
    if not reached or snapshot.replayed_lsn is None:
        return None
    return max(0, max(reached) - snapshot.replayed_lsn)


def _upstream(snapshot: Snapshot | None) -> str | None:
    receiver = snapshot.receiver if snapshot else None
    if receiver is None or receiver.host is None:
        return None
    return f"{receiver.host}:{receiver.port}" if receiver.port else receiver.host


def serving(found: Iterable[Standing]) -> list[Standing]:
    """Those that take writes now."""
    return [one for one in found if one.writes]


def primaries(found: Iterable[Standing]) -> list[Standing]:
    """Those whose PostgreSQL is a primary, serving or not: more than one is split brain."""
    return [one for one in found if one.role is Role.PRIMARY]


def known_reason(word: str) -> str:
    """The word if it is one of ours: what a peer says may be anything."""
    return word if word in _KNOWN else "other"


_KNOWN = frozenset({*(str(reason) for reason in Reason), SILENT, UNASKED})
