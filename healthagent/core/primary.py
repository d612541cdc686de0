"""May this node be given writes? Refusals first, the first match wins, then permission.

The order is the contract: each rule may rely on those above it.
"""

from healthagent.core.conflict import lost_to, rival_of, spelled_signals
from healthagent.core.evidence import refusal, refused_by_agent, refused_by_evidence
from healthagent.core.forced import forced_off, forced_on, override_of, too_early
from healthagent.core.members import (
    heard,
    heard_count,
    is_agent,
    last_round,
    majority,
    majority_heard_at,
    member_count,
    snapshot_of,
    stale,
)
from healthagent.core.model import Reason, Role, Snapshot, Verdict
from healthagent.core.peer import Alarm, Candidate, Peer
from healthagent.core.term import is_newly, round_complete
from healthagent.core.view import Override, Policy, View


def decide_primary(view: View, policy: Policy) -> Verdict:
    """Say whether this node may be given writes, and which rule, or operator, says so."""
    verdict, override = decide_by_rules(view, policy), override_of(view)
    if override is None or verdict.ok is override.on:
        return verdict
    return _force(override, verdict, view, policy) if override.on else forced_off(override, view.now)


def _force(override: Override, verdict: Verdict, view: View, policy: Policy) -> Verdict:
    """On, unless a rule refuses that no operator may set aside; each is the same as among the rules."""
    refused = (
        refused_by_agent(view, policy)
        or refused_by_evidence(view, policy)
        or _refused_by_postgres(view, policy)
        or _refused_by_identity(view, policy)
        or _refused_by_round(view, policy)
        or too_early(override, view, policy)
        or _refused_by_service(view, policy)
        or _refused_by_silence(view, policy)
        or _refused_by_state(view, policy)
    )
    if refused is not None:
        return refused
    return forced_on(override) if _snapshot(view).timeline == override.timeline else verdict


def decide_by_rules(view: View, policy: Policy) -> Verdict:
    """The verdict without any operator's word on it."""
    return (
        refused_by_agent(view, policy)
        or refused_by_evidence(view, policy)
        or _refused_by_postgres(view, policy)
        or _refused_by_high_water(view)
        or _refused_by_identity(view, policy)
        or _refused_by_gate(view, policy)
        or _refused_by_conflict(view)
        or _refused_by_drain(view, policy)
        or _refused_by_isolation(view, policy)
        or _refused_by_state(view, policy)
        or Verdict(True, Reason.PRIMARY, f"primary on timeline {_snapshot(view).timeline}")
    )


def _snapshot(view: View) -> Snapshot:
    snapshot = view.local.snapshot
    assert snapshot is not None, "refused_by_evidence comes first"
    return snapshot


def _refused_by_postgres(view: View, policy: Policy) -> Verdict | None:
    """Rules 3 and 4: PostgreSQL itself says no."""
    snapshot = _snapshot(view)
    if snapshot.role is Role.REPLICA:
        return refusal(Reason.NOT_PRIMARY, "PostgreSQL is in recovery: a replica")
    if snapshot.timeline is None or snapshot.system_identifier is None:
        what = ", ".join(snapshot.missing) or "timeline or system identifier"
        return refusal(
            Reason.PRIVILEGE_MISSING, f"the probe's role may not see {what}; see `healthagent sql`"
        )
    if snapshot.read_only:
        return refusal(Reason.READ_ONLY, "default_transaction_read_only is on: new sessions could not write")
    return None


def _refused_by_high_water(view: View) -> Verdict | None:
    """Rule 5: clients were already sent to a newer timeline."""
    snapshot, memory = _snapshot(view), view.memory
    cluster, timeline = snapshot.system_identifier, snapshot.timeline
    if cluster is None or timeline is None or not stale(timeline, cluster, memory):
        return None
    mark = memory.high_water[cluster]
    if memory.forgiven == (cluster, mark):
        return None
    return refusal(
        Reason.STALE_TIMELINE,
        f"this primary is on timeline {timeline}, but clients were already sent to timeline {mark}",
    )


def _refused_by_identity(view: View, policy: Policy) -> Verdict | None:
    """Rule 6: two clusters under one name."""
    own = _snapshot(view).system_identifier
    pinned = policy.system_identifier
    if pinned is not None:
        if own == pinned:
            return None
        return refusal(Reason.SYSTEM_ID_MISMATCH, f"system identifier {own}, but {pinned} is configured")
    for peer in view.peers:
        snapshot = snapshot_of(peer, view.now, policy)
        if snapshot is None or snapshot.role is not Role.PRIMARY or snapshot.system_identifier is None:
            continue
        if snapshot.system_identifier != own:
            return refusal(
                Reason.SYSTEM_ID_MISMATCH,
                f"{peer.label} is a primary with system identifier {snapshot.system_identifier}, "
                f"this one has {own}; set system_identifier to say which cluster is meant",
            )
    return None


def _refused_by_round(view: View, policy: Policy) -> Verdict | None:
    """Rule 7: every peer was asked, in this term and lately."""
    term = view.memory.term
    if term is None:
        return None
    # without anybody to ask, as before DNS has named the peers, only the number of members holds it back
    if any(peer.counts for peer in view.peers):
        last = last_round(view)
        if last is None or last.begun_at < term.since:
            # after lost evidence too: meanwhile a standby may have been promoted and told that we are down
            return refusal(Reason.START_GATE, "newly primary: not every peer has been asked yet")
        since_round = view.now - last.ended_at
        if since_round > policy.round_max_age:
            return refusal(
                Reason.START_GATE,
                f"the last round of questions to the peers ended {since_round:.1f} s ago, "
                f"at most {policy.round_max_age:g} s is fresh",
            )
    return None


def _refused_by_gate(view: View, policy: Policy) -> Verdict | None:
    """Rules 7 to 9: a primary that has just appeared looks around first."""
    term = view.memory.term
    if term is None:
        return None
    refused = _refused_by_round(view, policy)
    if refused is not None:
        return refused
    if not view.memory.serving:
        for peer in view.peers:
            statement = heard(peer, view.now, policy)
            if statement is not None and statement.snapshot is None and statement.reason == Reason.START_GATE:
                # before its first round it hides its PostgreSQL, which only a primary says from that gate
                return refusal(
                    Reason.START_GATE,
                    f"newly primary: {peer.label} is one too and has not yet said to whom it yields",
                )
    if not is_newly(view):
        return None
    members, present = member_count(view, policy), heard_count(view, policy)
    if members >= 3 and present < majority(members):
        return refusal(
            Reason.ISOLATED_AT_START,
            f"newly primary: {present} of {members} members heard, this one included; "
            f"a majority is {majority(members)}",
        )
    if not round_complete(view):
        return refusal(
            Reason.START_GATE, "newly primary: not every peer has been asked since a majority is heard again"
        )
    waited = view.now - term.since
    if members == 2 and present < 2 and waited < policy.start_alone_after:
        return refusal(
            Reason.START_ALONE,
            f"newly primary and the only peer is silent: {policy.start_alone_after - waited:.1f} s "
            f"of {policy.start_alone_after:g} s to wait",
        )
    return None


def _refused_by_conflict(view: View) -> Verdict | None:
    """Rule 10: another primary, and this one is not its clear winner."""
    conflict, term = view.memory.conflict, view.memory.term
    if conflict is None or term is None:
        return None
    winner = lost_to(view)
    if winner is None and conflict.winner is not None:
        return None
    others = ", ".join(str(rival.candidate) for rival in conflict.rivals)
    seen = f"timeline {term.timeline} here, also primary: {others}; {spelled_signals(conflict.signals)}"
    if winner is not None:
        return refusal(Reason.LOST_CONFLICT, f"{winner} is the rightful primary: {seen}")
    return refusal(Reason.DIVERGED, f"nobody is the clear winner, a person must stop one: {seen}")


def _refused_by_drain(view: View, policy: Policy) -> Verdict | None:
    """Rules 11 and 12: the other has not provably stood down yet."""
    for peer in view.peers:
        if peer.alarm is None:
            verdict = _still_serving(peer, view, policy) or _unyielding(peer, view, policy)
            if verdict is not None:
                return verdict
    return _refused_by_silence(view, policy) or _refused_by_own_word(view)


def _refused_by_service(view: View, policy: Policy) -> Verdict | None:
    """The part of rule 11 that no operator sets aside: another serves, or its clients are still leaving."""
    found = (_still_serving(peer, view, policy) for peer in view.peers if peer.alarm is None)
    return next((verdict for verdict in found if verdict is not None), None)


def _refused_by_silence(view: View, policy: Policy) -> Verdict | None:
    """Rule 12: who was serving and fell silent may serve for a while yet."""
    found = (_fell_silent(peer, view, policy) for peer in view.peers)
    return next((verdict for verdict in found if verdict is not None), None)


def _refused_by_own_word(view: View) -> Verdict | None:
    """Rule 7 again: a silent one may have come back, and serve because it has read that this node yields."""
    last, yielded_until = last_round(view), view.memory.yielded_until
    if last is None or last.begun_at >= yielded_until:
        return None
    return refusal(
        Reason.START_GATE,
        f"newly primary: not every peer has been asked since this node stopped yielding "
        f"{view.now - yielded_until:.1f} s ago",
    )


def _still_serving(peer: Peer, view: View, policy: Policy) -> Verdict | None:
    statement = heard(peer, view.now, policy)
    if statement is not None and statement.serving:
        return refusal(Reason.RIVAL_DRAINING, f"{peer.label} still answers 200 on /primary")
    if peer.served_until is None or (peer.statement and peer.statement.serving):
        return None
    if view.memory.serving and not _by_its_own_word(peer):
        # an agent reborn from long silence, which this node has waited for before it began to serve
        return None
    stopped_for = view.now - peer.served_until
    if stopped_for < policy.drain:
        return refusal(
            Reason.RIVAL_DRAINING,
            f"{peer.label} stopped serving {max(stopped_for, 0):.1f} s ago, "
            f"its clients have {policy.drain:g} s to leave",
        )
    return None


def _by_its_own_word(peer: Peer) -> bool:
    """Whether the agent itself served and says when it stopped; of a predecessor it cannot be sure.

    One that starts soon after its predecessor's last note says that it stopped when it started.
    """
    statement = peer.statement
    stopped = statement.stopped_serving_at if statement else None
    return statement is not None and stopped is not None and stopped > statement.started_at


def _unyielding(peer: Peer, view: View, policy: Policy) -> Verdict | None:
    statement, term = heard(peer, view.now, policy), view.memory.term
    if statement is None or term is None or rival_of(peer, view, policy) is None:
        return None
    own = Candidate(view.name, term.timeline)
    since = max(view.memory.yielded_until, term.since)
    if is_agent(statement) and statement.yields_to == own and statement.asked_at >= since:
        return None
    return refusal(
        Reason.RIVAL_DRAINING, f"{peer.label} is a primary too and has not said that it yields to {own}"
    )


def _fell_silent(peer: Peer, view: View, policy: Policy) -> Verdict | None:
    statement = peer.statement
    if statement is None or not statement.serving or peer.alarm in (Alarm.SELF, Alarm.DUPLICATE):
        return None
    since = statement.received_at if peer.silent_since is None else peer.silent_since
    silent_for = view.now - since
    if silent_for < policy.silence:
        return refusal(
            Reason.RIVAL_SILENT,
            f"{peer.label} was serving when it fell silent {silent_for:.1f} s ago; "
            f"{policy.silence:g} s must pass",
        )
    return None


def _refused_by_isolation(view: View, policy: Policy) -> Verdict | None:
    """Rule 13: only where an operator chose it; silence of others proves nothing by itself."""
    if not policy.demote_isolated:
        return None
    members, present = member_count(view, policy), heard_count(view, policy)
    alone_for = view.now - majority_heard_at(view, policy)
    if present >= majority(members) or alone_for < policy.isolation_after:
        return None
    return refusal(
        Reason.ISOLATED,
        f"{present} of {members} members heard, this one included, no majority for {alone_for:.1f} s "
        f"(isolation_after {policy.isolation_after:g} s)",
    )


def _refused_by_state(view: View, policy: Policy) -> Verdict | None:
    """Rule 14: what others must be able to learn after a crash is not on disk yet."""
    snapshot = _snapshot(view)
    if not policy.durable or snapshot.system_identifier is None or snapshot.timeline is None:
        return None
    saved = view.memory.saved_high_water.get(snapshot.system_identifier, 0)
    if saved >= snapshot.timeline:
        return None
    return refusal(
        Reason.STATE_UNSAVED,
        f"timeline {snapshot.timeline} is not yet in the state file, which holds {saved or 'none'}",
    )
