"""/status: everything that the agent knows, with ages, for people and for programs that dig."""

from healthagent import __version__
from healthagent.board import Board
from healthagent.core.conflict import spelled_signals
from healthagent.core.forced import override_of
from healthagent.core.members import heard, last_round, snapshot_of
from healthagent.core.model import Failure, Instant, Role, Snapshot, Verdict, lsn_text
from healthagent.core.peer import Candidate, Peer
from healthagent.core.primary import decide_by_rules
from healthagent.core.replica import lag_bytes, lag_seconds
from healthagent.core.term import is_newly
from healthagent.core.view import Memory, View
from healthagent.server.patroni import Json, in_maintenance


def status_json(board: Board, now: Instant, alarms: list[str]) -> Json:
    """What the agent knows and thinks at this moment."""
    primary, replica = board.primary(now), board.replica(now)
    view, snapshot, memory = board.view(now), board.local.snapshot, board.memory
    role = board.role(now)
    own = replica if role is Role.REPLICA else primary
    members, present = board.members(now)
    return {
        "name": board.identity.name,
        "cluster": board.identity.cluster,
        "version": __version__,
        "incarnation": board.identity.incarnation,
        "uptime": round(now - memory.started_at, 3),
        "witness": board.policy.witness,
        "role": role,
        "timeline": snapshot.timeline if snapshot and role else None,
        "system_identifier": _text(snapshot.system_identifier) if snapshot else None,
        "reason": own.reason,
        "detail": own.detail,
        "verdicts": {"primary": verdict_json(primary), "replica": verdict_json(replica)},
        "postgres": {
            "running": board.running(now).ok,
            "address": board.identity.address,
            "snapshot": None if snapshot is None else _snapshot(snapshot, now),
            "failure": _failure(board.local.failure, now),
            "new_connections": {
                "failures_in_a_row": board.local.new_connection_failures,
                "failure": _failure(board.local.new_connection_failure, now),
            },
            "missing": list(snapshot.missing) if snapshot else [],
            "lag_bytes": lag_bytes(view, board.policy),
            "lag_seconds": _rounded(lag_seconds(view, board.policy)),
        },
        "members": {"configured": members, "heard": present, "hash": board.members_hash()},
        "peers": [_peer(peer, board, now) for peer in board.peers.values()],
        "round": None
        if (last := last_round(view)) is None
        else {"began": round(now - last.begun_at, 3), "ended": round(now - last.ended_at, 3)},
        "high_water": _mark(memory),
        "term": None
        if memory.term is None
        else {
            "timeline": memory.term.timeline,
            "age": round(now - memory.term.since, 3),
            "newly": is_newly(view),
            "broken": memory.term.broken,
        },
        "last_served": None
        if memory.served is None
        else {"timeline": memory.served.timeline, "ago": round(now - memory.served.at, 3)},
        "conflict": _conflict(memory, now),
        "yields_to": _candidate(memory.yields_to),
        "maintenance": _maintenance(board, now),
        "override": _override(view, board),
        "lease": None,
        "alarms": alarms,
    }


def verdict_json(verdict: Verdict) -> Json:
    return {"ok": verdict.ok, "reason": verdict.reason, "detail": verdict.detail}


def _maintenance(board: Board, now: Instant) -> Json | None:
    maintenance = board.memory.maintenance
    if maintenance is None or not in_maintenance(board, now):
        return None
    left = None if maintenance.until is None else round(max(0.0, maintenance.until - now), 1)
    return {"remaining": left, "who": maintenance.who, "why": maintenance.why}


def _override(view: View, board: Board) -> Json | None:
    override = override_of(view)
    if override is None:
        return None
    rules = decide_by_rules(view, board.policy)
    return {
        "primary": "on" if override.on else "off",
        "remaining": round(override.until - view.now, 1),
        "who": override.who,
        "why": override.why,
        "by_rules": verdict_json(rules),  # what would be answered without it
    }


def _text(identifier: int | None) -> str | None:
    return None if identifier is None else str(identifier)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _candidate(candidate: Candidate | None) -> Json | None:
    return None if candidate is None else {"name": candidate.name, "timeline": candidate.timeline}


def _mark(memory: Memory) -> list[Json]:
    return [
        {
            "system_identifier": str(identifier),
            "timeline": timeline,
            "saved": memory.saved_high_water.get(identifier, 0) >= timeline,
        }
        for identifier, timeline in memory.high_water.items()
    ]


def _failure(failure: Failure | None, now: Instant) -> Json | None:
    if failure is None:
        return None
    return {"reason": failure.reason, "detail": failure.detail, "age": round(now - failure.at, 3)}


def _snapshot(snapshot: Snapshot, now: Instant) -> Json:
    receiver = snapshot.receiver
    return {
        "age": round(snapshot.age(now), 3),
        "role": snapshot.role,
        "timeline": snapshot.timeline,
        "system_identifier": _text(snapshot.system_identifier),
        "server_version": snapshot.server_version,
        "postmaster_started_at": snapshot.postmaster_started_at,
        "read_only": snapshot.read_only,
        "insert_lsn": None if snapshot.insert_lsn is None else lsn_text(snapshot.insert_lsn),
        "flush_lsn": None if snapshot.flush_lsn is None else lsn_text(snapshot.flush_lsn),
        "received_lsn": None if snapshot.received_lsn is None else lsn_text(snapshot.received_lsn),
        "replayed_lsn": None if snapshot.replayed_lsn is None else lsn_text(snapshot.replayed_lsn),
        "replayed_timestamp": snapshot.replayed_timestamp,
        "replay_paused": snapshot.replay_paused,
        "replication_state": snapshot.replication_state,
        "upstream": None
        if receiver is None
        else {"host": receiver.host, "port": receiver.port, "status": receiver.status},
        "followers": len(snapshot.followers),
    }


def _peer(peer: Peer, board: Board, now: Instant) -> Json:
    statement, present = peer.statement, heard(peer, now, board.policy)
    snapshot = snapshot_of(peer, now, board.policy)
    return {
        "name": peer.label,
        "witness": peer.witness,
        "heard": present is not None,
        "age": None if statement is None else round(now - statement.asked_at, 3),
        "silent_for": None if peer.silent_since is None else round(now - peer.silent_since, 3),
        "source": statement.source if statement else None,
        "version": statement.version if statement else None,
        "role": snapshot.role if snapshot else None,
        "timeline": snapshot.timeline if snapshot else None,
        "system_identifier": _text(snapshot.system_identifier) if snapshot else None,
        "serving": present is not None and present.serving,
        "replica": None
        if present is None or present.replica_ok is None
        else {"ok": present.replica_ok, "reason": present.replica_reason},
        "not_serving_for": None
        if present is None or present.serving or peer.served_until is None
        else round(now - peer.served_until, 3),
        "yields_to": _candidate(statement.yields_to) if present and statement else None,
        "reason": statement.reason if present and statement else None,
        "detail": statement.detail if present and statement else None,
        "members_hash": statement.members_hash if statement else None,
        "alarm": peer.alarm,
        "alarm_detail": peer.alarm_detail or None,
        "asked_directly": None
        if peer.asked_directly is None
        else {
            "role": peer.asked_directly.role,
            "timeline": peer.asked_directly.timeline,
            "age": round(peer.asked_directly.age(now), 3),
        },
        "sees": [
            {
                "name": sight.name,
                "heard": sight.heard,
                "role": sight.role,
                "timeline": sight.timeline,
                "serving": sight.serving,
            }
            for sight in (statement.sees if present and statement else ())
        ],
    }


def _conflict(memory: Memory, now: Instant) -> Json | None:
    conflict = memory.conflict
    if conflict is None:
        return None
    return {
        "rivals": [
            {
                "name": rival.candidate.name,
                "timeline": rival.candidate.timeline,
                "last_primary": round(now - rival.primary_at, 3),
            }
            for rival in conflict.rivals
        ],
        "signals": {
            "timeline": _candidate(conflict.signals.timeline),
            "followers": _candidate(conflict.signals.followers),
            "incumbent": _candidate(conflict.signals.incumbent),
        },
        "explained": spelled_signals(conflict.signals),
        "winner": _candidate(conflict.winner),
    }
