"""May this node be given reads, and within which lag?

Reads survive a dead primary: without a current one there is nothing to lag behind but
the last WAL that was seen. With one, a replica must have streamed lately, from a node
that nobody calls stale, on the primary's timeline.
"""

from dataclasses import dataclass, field

from healthagent.core.conflict import upstream
from healthagent.core.evidence import refusal, refused_by_agent, refused_by_evidence
from healthagent.core.members import heard, snapshot_of, stale
from healthagent.core.model import Follower, Instant, LagLimit, Lsn, Reason, Role, Snapshot, Verdict
from healthagent.core.peer import Peer
from healthagent.core.view import Policy, View

_SUPERSEDED = (Reason.STALE_TIMELINE, Reason.LOST_CONFLICT)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one question adds to the configured policy."""

    limit: LagLimit = field(default_factory=LagLimit)
    replication_state: str | None = None  # Patroni's ?replication_state=
    readiness: bool = False  # for a probe that must not take a healthy standby out: no tags, no hold
    received: bool = False  # lag of what was received rather than replayed: Patroni's mode=write


PLAIN = Ask()


def decide_replica(view: View, policy: Policy, ask: Ask = PLAIN) -> Verdict:
    """Say whether this node may be given reads, and which rule says so."""
    refused = refused_by_agent(view, policy) or refused_by_evidence(view, policy)
    if refused is not None:
        return refused
    snapshot = _snapshot(view)
    if snapshot.role is not Role.REPLICA:
        return refusal(Reason.NOT_REPLICA, "PostgreSQL is not in recovery: a primary")
    if policy.no_load_balance and not ask.readiness:
        return refusal(Reason.NO_LOAD_BALANCE, "the tag noloadbalance keeps reads away from this node")
    return (
        _refused_by_replication(view, policy)
        or _refused_by_state(snapshot, ask)
        or _refused_by_lag(view, policy, ask)
        or _permitted(view, policy)
    )


def _snapshot(view: View) -> Snapshot:
    snapshot = view.local.snapshot
    assert snapshot is not None, "refused_by_evidence comes first"
    return snapshot


def current_primary(view: View, policy: Policy) -> tuple[Peer, Snapshot] | None:
    """The primary that clients belong to now: the serving one, else the only one in sight."""
    primaries = [
        (peer, snapshot)
        for peer in view.peers
        if (snapshot := snapshot_of(peer, view.now, policy)) is not None
        and snapshot.role is Role.PRIMARY
        and _same_cluster(snapshot, view.local.snapshot)
        and not stale(snapshot.timeline, snapshot.system_identifier, view.memory)
        and not _superseded(peer, view, policy)
    ]
    serving = [found for found in primaries if _says_serving(found[0], view, policy)]
    for found in (serving, primaries):
        if len(found) == 1:
            return found[0]
    return None


def _same_cluster(one: Snapshot, other: Snapshot | None) -> bool:
    """Whether nothing shows the two to be of different clusters."""
    identifiers = {one.system_identifier, other.system_identifier if other else None}
    return len(identifiers - {None}) < 2


def _says_serving(peer: Peer, view: View, policy: Policy) -> bool:
    statement = heard(peer, view.now, policy)
    return statement is not None and statement.serving


def _superseded(peer: Peer, view: View, policy: Policy) -> bool:
    statement = heard(peer, view.now, policy)
    return statement is not None and statement.reason in _SUPERSEDED


def _primary_known(view: View, policy: Policy) -> bool:
    """Whether some primary is known to live: a peer, or the far end of our own stream."""
    return current_primary(view, policy) is not None or _snapshot(view).streaming


def follows_rightly(view: View, policy: Policy) -> bool:
    """Whether the node that this one streams from is not known to be superseded."""
    source = upstream(view.local.snapshot, view)
    peer = next((peer for peer in view.peers if peer.label == source), None)
    if peer is None:
        return True
    snapshot = snapshot_of(peer, view.now, policy)
    if snapshot is not None and stale(snapshot.timeline, snapshot.system_identifier, view.memory):
        return False
    return not _superseded(peer, view, policy)


def on_right_timeline(view: View, policy: Policy) -> bool:
    """Whether nothing shows this node to be on another timeline than the current primary."""
    found, snapshot = current_primary(view, policy), view.local.snapshot
    if found is None or snapshot is None or snapshot.timeline is None or found[1].timeline is None:
        return True
    return snapshot.timeline == found[1].timeline


def _refused_by_replication(view: View, policy: Policy) -> Verdict | None:
    """Rules 4 to 6, each only once it has lasted longer than the grace."""
    memory, now, snapshot = view.memory, view.now, _snapshot(view)
    found = current_primary(view, policy)
    if found is not None and not snapshot.streaming and _past(memory.streamed_at, now, policy):
        if "pg_stat_wal_receiver" in snapshot.missing:
            return refusal(
                Reason.PRIVILEGE_MISSING,
                "the probe's role may not see pg_stat_wal_receiver, so streaming is unknown; "
                "grant it pg_monitor (`healthagent sql`)",
            )
        return refusal(
            Reason.REPLICATION_DOWN,
            f"{found[0].label} is primary, but this node has not streamed {_since(memory.streamed_at, now)} "
            f"(grace {policy.grace:g} s)",
        )
    if not follows_rightly(view, policy) and _past(memory.followed_at, now, policy):
        return refusal(
            Reason.FOLLOWS_STALE,
            f"it streams from {upstream(snapshot, view)}, which is superseded, "
            f"and followed no other {_since(memory.followed_at, now)} (grace {policy.grace:g} s)",
        )
    if found and not on_right_timeline(view, policy) and _past(memory.on_timeline_at, now, policy):
        return refusal(
            Reason.TIMELINE_DIFFERS,
            f"timeline {snapshot.timeline} here, but {found[0].label} is primary on {found[1].timeline}",
        )
    return None


def _past(last_good: Instant | None, now: Instant, policy: Policy) -> bool:
    """Grace is for what was seen well once; what never was is not believed on credit."""
    return last_good is None or now - last_good > policy.grace


def _since(last_good: Instant | None, now: Instant) -> str:
    return "since the agent started" if last_good is None else f"for {now - last_good:.0f} s"


def _refused_by_state(snapshot: Snapshot, ask: Ask) -> Verdict | None:
    if ask.replication_state is None or snapshot.replication_state == ask.replication_state:
        return None
    return refusal(
        Reason.REPLICATION_STATE_DIFFERS,
        f"replication state is {snapshot.replication_state or 'none'}, asked for {ask.replication_state}",
    )


def lag_bytes(view: View, policy: Policy, received: bool = False) -> int | None:
    """Bytes between the newest WAL known anywhere and what is replayed here; None if unknown."""
    snapshot = view.local.snapshot
    if snapshot is None or snapshot.role is not Role.REPLICA:
        return None
    reached = snapshot.received_lsn if received else snapshot.replayed_lsn
    reference = _reference(view, policy)
    if reached is None or reference is None:
        return None
    return max(0, reference - reached)


def _reference(view: View, policy: Policy) -> Lsn | None:
    snapshot = _snapshot(view)
    found = current_primary(view, policy)
    latest_end = snapshot.receiver.latest_end_lsn if snapshot.receiver else None
    known = [lsn for lsn in (latest_end, found[1].flush_lsn if found else None) if lsn is not None]
    if not known and not _primary_known(view, policy):
        # no primary anywhere: the last WAL that arrived is the measure
        known = [lsn for lsn in (snapshot.received_lsn, snapshot.replayed_lsn) if lsn is not None]
    return max(known) if known else None


def lag_seconds(view: View, policy: Policy, received: bool = False) -> float | None:
    """Age of the last replayed commit, 0 when all that is known of is replayed; None if unknown.

    With `received` 0 when all has arrived that the other end of the stream tells of, or the primary where
    there is no stream; else the same age, since what has arrived is at least as young as what is replayed.
    """
    snapshot = view.local.snapshot
    if snapshot is None or snapshot.role is not Role.REPLICA or snapshot.replayed_lsn is None:
        return None
    sent = snapshot.receiver.latest_end_lsn if snapshot.receiver else None
    reached, known = (
        (snapshot.received_lsn, sent) if received else (snapshot.replayed_lsn, snapshot.received_lsn)
    )
    streams = snapshot.streaming and not (received and known is None)
    reference = known if streams else _reference(view, policy)
    if reference is not None and reached is not None and reached >= reference:
        return 0.0
    if snapshot.replay_age_seconds is None:
        return None
    return max(0.0, snapshot.replay_age_seconds + snapshot.age(view.now))


def lag_within(view: View, policy: Policy, limit: LagLimit, received: bool = False) -> bool | None:
    """Whether the lag is within the limit; None when it cannot be known."""
    if limit.lag_bytes is not None:
        behind = lag_bytes(view, policy, received)
        if behind is None or behind > limit.lag_bytes:
            return None if behind is None else False
    if limit.lag_seconds is not None:
        late = lag_seconds(view, policy, received)
        if late is None or late > limit.lag_seconds:
            return None if late is None else False
    return True


def _refused_by_lag(view: View, policy: Policy, ask: Ask) -> Verdict | None:
    limits = [ask.limit] if ask.readiness and not ask.limit.unlimited else [ask.limit, policy.lag_limit]
    for limit in limits:
        within = True if limit.unlimited else lag_within(view, policy, limit, ask.received)
        if within is None:
            return refusal(
                Reason.LAG_UNKNOWN, f"a lag of at most {spelled(limit)} is wanted, but cannot be known"
            )
        if not within:
            return refusal(
                Reason.LAGGING, f"{_behind(view, policy, ask)} behind, at most {spelled(limit)} is wanted"
            )
    lagged_at = view.memory.lagged_at
    if lagged_at is not None and not ask.readiness and view.now - lagged_at < policy.hold:
        return refusal(
            Reason.LAGGING,
            f"it was more than {spelled(policy.lag_limit)} behind {view.now - lagged_at:.1f} s ago; "
            f"{policy.hold:g} s below it must pass",
        )
    return None


def _behind(view: View, policy: Policy, ask: Ask) -> str:
    behind, late = lag_bytes(view, policy, ask.received), lag_seconds(view, policy, ask.received)
    in_bytes = "unknown bytes" if behind is None else f"{behind} bytes"
    return in_bytes if late is None else f"{in_bytes}, {late:.1f} s"


def spelled(limit: LagLimit) -> str:
    """A limit in words."""
    parts = []
    if limit.lag_bytes is not None:
        parts.append(f"{limit.lag_bytes} bytes")
    if limit.lag_seconds is not None:
        parts.append(f"{limit.lag_seconds:g} s")
    return " and ".join(parts)


def _permitted(view: View, policy: Policy) -> Verdict:
    if _primary_known(view, policy):
        return Verdict(True, Reason.REPLICA, f"replica on timeline {_snapshot(view).timeline or 'unknown'}")
    if policy.require_primary:
        return refusal(Reason.NO_PRIMARY, "no current primary is known and replica.require_primary is set")
    return Verdict(True, Reason.REPLICA_NO_PRIMARY, "replica; no current primary is known")


def decide_sync(view: View, policy: Policy, wanted: str, ask: Ask = PLAIN) -> Verdict:
    """Narrow the replica verdict to `wanted`: sync, quorum, or async for neither of them.

    The primary's pg_stat_replication is the only place that knows.
    """
    verdict = decide_replica(view, policy, ask)
    if not verdict.ok:
        return verdict
    state = sync_state(view, policy)
    if state is None:
        return refusal(Reason.SYNC_UNKNOWN, "no current primary tells how this replica is attached")
    if wanted == "async":
        if state in ("sync", "quorum"):
            return refusal(Reason.NOT_ASYNC, f"the primary calls this replica {state}")
    elif state != wanted:
        return refusal(
            Reason.NOT_SYNC if wanted == "sync" else Reason.NOT_QUORUM, f"the primary calls it {state}"
        )
    return verdict


def sync_state(view: View, policy: Policy) -> str | None:
    """sync, quorum, potential or async: the word of the primary's pg_stat_replication for this node."""
    found, snapshot = current_primary(view, policy), view.local.snapshot
    if found is None or snapshot is None or snapshot.receiver is None:
        return None
    name = snapshot.receiver.application_name
    rows = [row for row in found[1].followers if row.application_name == name and name is not None]
    states = {row.sync_state for row in _ours(rows, view)}
    return states.pop() if len(states) == 1 else None


def _ours(rows: list[Follower], view: View) -> list[Follower]:
    """Of several followers with one name, those that connect from this node's address."""
    if len(rows) < 2:
        return rows
    addresses = {address for address, _ in view.addresses.get(view.name, frozenset())}
    return [row for row in rows if row.client_addr in addresses] or rows
