"""Patroni's JSON, field for field where no DCS is behind it, so that its clients work.

Source: patroni/api.py (`get_postgresql_status`) and patroni/utils.py (`cluster_as_json`)
of Patroni 4.1; bodies of a running 4.1.5 were compared. Fields that Patroni leaves out
when false or unknown are left out here too.
"""

from collections.abc import Mapping

from healthagent import __version__
from healthagent.board import Board
from healthagent.core.members import heard, snapshot_of
from healthagent.core.model import Instant, Reason, Role, Snapshot, Tag, lsn_text
from healthagent.core.peer import Peer, Statement
from healthagent.core.replica import sync_state
from healthagent.server.places import Place

COMPATIBLE_WITH = "4.1.5"  # what our JSON looks like; below 3.0.4 clients misread `streaming`

Json = dict[str, object]

NO_TIMELINE = 0  # clients (check-patroni) read this field of every member without looking for it

_STATES = {Reason.POSTGRES_STARTING: "starting", Reason.POSTGRES_DOWN: "stopped"}
# left out, and so not there for `?tag_x=false` either, while they are false
_SILENT_WHEN_FALSE = ("clonefrom", "nofailover", "noloadbalance", "nosync", "nostream")
_SPOKEN_WITH = {"nofailover": "failover_priority", "nosync": "sync_priority"}


def shown_tags(tags: Mapping[str, Tag]) -> dict[str, Tag]:
    """The tags that Patroni shows (its Tags._filter_tags)."""
    return {
        name: value
        for name, value in tags.items()
        if value or name not in _SILENT_WHEN_FALSE or _SPOKEN_WITH.get(name) in tags
    }


def in_maintenance(board: Board, now: Instant) -> bool:
    """Whether an operator has taken this node out at this moment: Patroni's `pause`."""
    maintenance = board.memory.maintenance
    return maintenance is not None and (maintenance.until is None or now < maintenance.until)


def node_json(board: Board, now: Instant) -> Json:
    """This node as /patroni and every check describe it."""
    running = board.running(now)
    snapshot = board.local.snapshot
    body: Json = {
        "state": "running" if running.ok else _STATES.get(running.reason, "unknown"),
        "role": snapshot.role.value if snapshot else "uninitialized",
    }
    if snapshot is not None:
        if running.ok:
            body.update(_queried(board, snapshot, now))
        if snapshot.system_identifier is not None:
            body["database_system_identifier"] = str(snapshot.system_identifier)
    if tags := shown_tags(board.identity.tags):
        body["tags"] = tags
    if in_maintenance(board, now):
        body["pause"] = True
    body["patroni"] = {
        "version": COMPATIBLE_WITH,
        "scope": board.identity.cluster,
        "name": board.identity.name,
    }
    body["healthagent"] = {"version": __version__}
    return body


def _queried(board: Board, snapshot: Snapshot, now: Instant) -> Json:
    body: Json = {
        "postmaster_start_time": snapshot.postmaster_started_at,
        "server_version": snapshot.server_version,
    }
    if snapshot.timeline is not None:
        body["timeline"] = snapshot.timeline
    if snapshot.role is Role.PRIMARY:
        body["xlog"] = {"location": snapshot.flush_lsn}
    else:
        body["xlog"] = {
            "received_location": snapshot.received_lsn,
            "replayed_location": snapshot.replayed_lsn,
            "replayed_timestamp": snapshot.replayed_timestamp,
            "paused": snapshot.replay_paused,
        }
        if snapshot.replication_state is not None:
            body["replication_state"] = snapshot.replication_state
        attached = sync_state(board.view(now), board.policy)
        if attached in ("sync", "quorum"):
            body[f"{attached}_standby"] = True
    if snapshot.followers:
        body["replication"] = [
            {
                "usename": row.usename,
                "application_name": row.application_name,
                "client_addr": row.client_addr,
                "state": row.state,
                "sync_state": row.sync_state,
                "sync_priority": row.sync_priority,
            }
            for row in snapshot.followers
        ]
    return body


def cluster_json(board: Board, places: Mapping[str, Place], now: Instant) -> Json:
    """Every configured data node as /cluster lists it, silent and stopped ones too."""
    own = board.local.snapshot
    members: list[Json] = []
    if not board.policy.witness:
        running = board.running(now)
        state = _state(own) if running.ok else _STATES.get(running.reason, "unknown")
        serving = board.primary(now).ok
        members.append(_member(board, board.identity.name, own, state, serving, running.ok, now))
        _locate(members[-1], board.identity.address, places.get(board.identity.name))
        if tags := shown_tags(board.identity.tags):
            members[-1]["tags"] = tags
    for peer in board.peers.values():
        if not peer.witness and peer.counts:
            members.append(_peer_member(board, peer, places.get(peer.name), now))
    members.sort(key=lambda member: str(member["name"]))
    body: Json = {"members": members, "scope": board.identity.cluster}
    if in_maintenance(board, now):
        body["pause"] = True
    return body


def _peer_member(board: Board, peer: Peer, place: Place | None, now: Instant) -> Json:
    statement, snapshot = heard(peer, now, board.policy), snapshot_of(peer, now, board.policy)
    fresh = snapshot is not None
    if snapshot is not None:
        state = _state(snapshot)
    else:
        state = _peer_state(statement)
        snapshot = peer.statement.snapshot if peer.statement else None
    serving = statement is not None and statement.serving
    member = _member(board, peer.label, snapshot, state, serving, fresh, now)
    if snapshot is None:
        member["timeline"] = peer.timeline or NO_TIMELINE
    _locate(member, peer.statement.address if peer.statement else None, place)
    if peer.statement and (tags := shown_tags(dict(peer.statement.tags))):
        member["tags"] = tags
    return member


def _peer_state(statement: Statement | None) -> str:
    """In Patroni's words, what an agent without fresh evidence says of its PostgreSQL."""
    if statement is None:
        return "unknown"
    return {str(reason): word for reason, word in _STATES.items()}.get(statement.reason, "unknown")


def _state(snapshot: Snapshot | None) -> str:
    if snapshot is None:
        return "unknown"
    return snapshot.replication_state or "running"


def _member(
    board: Board,
    name: str,
    snapshot: Snapshot | None,
    state: str,
    serving: bool,
    fresh: bool,
    now: Instant,
) -> Json:
    # only the node that may be given writes is the leader: two of them would be believed
    primary = snapshot is not None and snapshot.role is Role.PRIMARY
    role = "leader" if serving else "primary" if primary and fresh else "replica"
    if role == "replica" and snapshot is not None:
        role = _replica_role(board, name, snapshot, now)
    member: Json = {"name": name, "role": role, "state": state}
    member["timeline"] = (snapshot.timeline if snapshot else None) or NO_TIMELINE
    if role not in ("leader", "primary"):
        _add_lag(member, board, snapshot if fresh else None, now)
    return member


def _replica_role(board: Board, name: str, snapshot: Snapshot, now: Instant) -> str:
    label = snapshot.receiver.application_name if snapshot.receiver else name
    for follower in _leader_snapshot(board, now)[1]:
        if follower[0] == label and follower[1] in ("sync", "quorum"):
            return f"{follower[1]}_standby"
    return "replica"


def _leader_snapshot(board: Board, now: Instant) -> tuple[int | None, list[tuple[str | None, str | None]]]:
    """The newest flush LSN of a fresh primary, and how its followers are attached."""
    candidates = [snapshot_of(peer, now, board.policy) for peer in board.peers.values()]
    if board.role(now) is Role.PRIMARY:
        candidates.append(board.local.snapshot)
    primaries = [one for one in candidates if one is not None and one.role is Role.PRIMARY]
    if not primaries:
        return None, []
    leader = max(primaries, key=lambda one: (one.timeline or 0, one.flush_lsn or 0))
    return leader.flush_lsn, [(row.application_name, row.sync_state) for row in leader.followers]


def _add_lag(member: Json, board: Board, snapshot: Snapshot | None, now: Instant) -> None:
    reference = _leader_snapshot(board, now)[0]
    received = snapshot.received_lsn if snapshot else None
    replayed = snapshot.replayed_lsn if snapshot else None
    reached = max((lsn for lsn in (received, replayed) if lsn is not None), default=None)
    for prefix, lsn in (("receive_", received), ("replay_", replayed), ("", reached)):
        known = lsn is not None and reference is not None
        member[f"{prefix}lag"] = max(0, (reference or 0) - (lsn or 0)) if known else "unknown"
        member[f"{prefix}lsn"] = "unknown" if lsn is None else lsn_text(lsn)


def _locate(member: Json, address: str | None, place: Place | None) -> None:
    """Say where it is: as it says itself, or until then as is configured."""
    if place is not None:
        member["api_url"] = f"{place.url}/patroni"
        address = address or place.address
    if address is not None:
        host, _, port = address.rpartition(":")
        member["host"] = host.strip("[]")
        member["port"] = int(port) if port.isdigit() else 5432
