"""What is wrong without changing a verdict: for the log, /status and a metric."""

from healthagent.board import Board
from healthagent.core.members import snapshot_of
from healthagent.core.model import Instant, Role
from healthagent.core.peer import Alarm, Peer


def alarms_of(board: Board, state_error: str | None, now: Instant, tls_error: str | None = None) -> list[str]:
    """One sentence each, the same while nothing changes."""
    found = []
    primaries = _primaries(board, now)
    if len(primaries) > 1:
        found.append(f"several primaries: {', '.join(primaries)}; stop all but the right one")
    override = board.memory.override
    if override is not None:
        now_is = "on: rules are set aside" if override.on else "off"
        found.append(f"override: /primary is forced {now_is}, by {override.said}")
    if state_error is not None:
        found.append(f"state: {state_error}")
    if tls_error is not None:
        found.append(f"tls: {tls_error}")
    failure = board.local.new_connection_failure
    if failure is not None:
        found.append(f"postgres: new connections fail: {failure.detail}")
    snapshot = board.local.snapshot
    if snapshot is not None and snapshot.missing:
        found.append(
            f"postgres: the probe's role may not see {', '.join(snapshot.missing)}; see `healthagent sql`"
        )
    members_hash = board.members_hash()
    for peer in board.peers.values():
        if peer.alarm is not None and not _expected(peer, board):
            found.append(f"peer {peer.name}: {peer.alarm}: {peer.alarm_detail}")
        statement = peer.statement
        if statement and statement.members_hash and statement.members_hash != members_hash:
            found.append(f"peer {peer.name}: has another list of members; compare the `peers` of both")
        if statement and peer.alarm is None and statement.name == board.identity.name:
            found.append(f"peer {peer.name}: another agent has this node's name; give each a name of its own")
    return found


def _primaries(board: Board, now: Instant) -> list[str]:
    """Every PostgreSQL in sight that is a primary, serving or refused, by its agent or itself."""
    snapshots = {
        peer.label: snapshot_of(peer, now, board.policy) for peer in board.peers.values() if peer.counts
    }
    if board.role(now) is Role.PRIMARY:
        snapshots[board.identity.name] = board.local.snapshot
    return [
        f"{name} on timeline {snapshot.timeline}"
        for name, snapshot in sorted(snapshots.items())
        if snapshot is not None and snapshot.role is Role.PRIMARY
    ]


def _expected(peer: Peer, board: Board) -> bool:
    """Whether an entry is ignored as it should be: one list for all nodes, or all addresses of a name."""
    if peer.discovered:
        return peer.alarm in (Alarm.SELF, Alarm.DUPLICATE)
    return peer.alarm is Alarm.SELF and peer.name == board.identity.name
