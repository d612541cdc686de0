"""What is wrong without changing a verdict: for the log, /status and a metric."""

from .board import Board
from .core.peer import Alarm, Peer


def alarms_of(board: Board, state_error: str | None) -> list[str]:
    """One sentence each, the same while nothing changes."""
    found = []
    if state_error is not None:
        found.append(f"state: {state_error}")
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


def _expected(peer: Peer, board: Board) -> bool:
    """Whether an entry is ignored as it should be: one list for all nodes, or all addresses of a name."""
    if peer.discovered:
        return peer.alarm in (Alarm.SELF, Alarm.DUPLICATE)
    return peer.alarm is Alarm.SELF and peer.name == board.identity.name
