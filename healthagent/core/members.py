"""What is known of the other members, and how fresh it is.

A member is *heard* while its agent's last answer is at most `peer_max_age` old,
whatever it said. What it said of its PostgreSQL counts only while that snapshot was
young enough too: an agent beside a frozen server is heard, and says nothing.
"""

from dataclasses import replace

from healthagent.core.model import Instant, Role, Snapshot
from healthagent.core.peer import Alarm, Call, Peer, Served, Source, Statement
from healthagent.core.view import Memory, Policy, View


def heard(peer: Peer, now: Instant, policy: Policy) -> Statement | None:
    """The peer's last statement while it is fresh."""
    statement = peer.statement
    if statement is None or peer.alarm is not None:
        return None
    return statement if now - statement.asked_at <= policy.peer_max_age else None


def snapshot_of(peer: Peer, now: Instant, policy: Policy) -> Snapshot | None:
    """The fresh evidence of what the peer's PostgreSQL is, from its agent or else from itself."""
    statement = heard(peer, now, policy)
    if statement is not None:
        snapshot = statement.snapshot
        if snapshot and statement.received_at - snapshot.asked_at <= policy.snapshot_max_age:
            return snapshot
        return None
    # where this agent itself answers, or one of another cluster, the DSN leads to that one's PostgreSQL
    direct = peer.asked_directly if peer.alarm in (None, Alarm.MISUNDERSTOOD) else None
    return direct if direct and direct.age(now) <= policy.snapshot_max_age else None


def member_count(view: View, policy: Policy) -> int:
    """The configured members, this one and witnesses included."""
    if policy.expected_members is not None:
        return policy.expected_members
    return 1 + sum(peer.counts for peer in view.peers)


def last_round(view: View) -> Call | None:
    """The last time by which every peer had been asked, and had answered or run out of time.

    Each peer is asked at its own pace, so that a silent one slows no other; a round is what
    the slowest has completed.
    """
    begun_at = ended_at = float("inf")
    for peer in view.peers:
        if peer.counts:
            if peer.last_call is None:
                return None
            begun_at = min(begun_at, peer.last_call.begun_at)
            ended_at = min(ended_at, peer.last_call.ended_at)
    return Call(begun_at, ended_at) if ended_at < float("inf") else None


def majority(members: int) -> int:
    return members // 2 + 1


def heard_count(view: View, policy: Policy) -> int:
    """The members heard now, this one included."""
    return 1 + sum(heard(peer, view.now, policy) is not None for peer in view.peers)


def majority_heard_at(view: View, policy: Policy) -> Instant:
    """The last moment at which answers of a majority, this one included, were in hand."""
    needed = majority(member_count(view, policy)) - 1
    if needed == 0:
        return view.now
    # an answer that cannot be read is no evidence, and does not undo the ones before it
    answers = sorted(
        (peer.statement.received_at for peer in view.peers if peer.statement and peer.counts),
        reverse=True,
    )
    return answers[needed - 1] if len(answers) >= needed else view.memory.started_at


def stale(timeline: int | None, system_identifier: int | None, memory: Memory) -> bool:
    """Whether clients were already sent to a newer timeline of that cluster."""
    if timeline is None or system_identifier is None:
        return False
    return timeline < memory.high_water.get(system_identifier, 0)


def hear(peer: Peer, statement: Statement) -> Peer:
    """Take in a peer's new statement; what it may have served before stays remembered."""
    before = peer.statement
    if before is not None and statement.asked_at < before.asked_at:
        return peer  # overtaken on the way by a younger one
    heard_serving, snapshot = peer.heard_serving, statement.snapshot
    if statement.serving and snapshot is not None and snapshot.timeline is not None:
        heard_serving = Served(snapshot.system_identifier, snapshot.timeline, statement.received_at)
    return replace(
        peer,
        statement=statement,
        timeline=statement.timeline or peer.timeline,
        silent_since=None,
        heard_serving=heard_serving,
        served_until=_served_until(peer, statement),
        alarm=None,
        alarm_detail="",
        asked_directly=None,
    )


def _served_until(peer: Peer, statement: Statement) -> Instant | None:
    """Until when the peer may have served, at the latest; None if it has not, or is a replica since."""
    if statement.serving:
        return statement.received_at
    if statement.role is Role.REPLICA:
        return None
    before, known, stopped = peer.statement, peer.served_until, statement.stopped_serving_at
    if stopped is not None and stopped > statement.started_at:
        return stopped  # it served itself and knows when it stopped
    if before is not None and known is not None:
        if before.incarnation != statement.incarnation:
            # the predecessor may have served until it died, and it had died when this one started
            known = max(known, statement.started_at)
        elif before.serving:
            known = statement.received_at  # it does not say when it stopped: a Patroni node cannot
    # what an agent recalls of its predecessor may be older than what was heard of that one
    return max((instant for instant in (known, stopped) if instant is not None), default=None)


def joined(peer: Peer, own: Peer) -> Peer:
    """What a predecessor knows of a peer, and what this agent has heard of it since."""
    calls = [call for call in (peer.last_call, own.last_call) if call is not None]
    known = replace(
        peer,
        witness=own.witness,
        last_call=max(calls, key=lambda call: (call.begun_at, call.ended_at), default=None),
    )
    return hear(known, own.statement) if own.statement is not None and own.alarm is None else known


def miss(peer: Peer, asked_at: Instant) -> Peer:
    """Note that a question of `asked_at` went unanswered; what was heard before ages by itself."""
    if peer.silent_since is not None or (peer.statement and peer.statement.asked_at >= asked_at):
        return peer
    return replace(peer, silent_since=asked_at)


def refuse(peer: Peer, alarm: Alarm, detail: str) -> Peer:
    """Ignore what an entry says, and remember why; the peer that was meant stays silent meanwhile."""
    return replace(peer, alarm=alarm, alarm_detail=detail)


def is_agent(statement: Statement) -> bool:
    """Whether the speaker knows our protocol: only such a one can yield."""
    return statement.source is Source.AGENT
