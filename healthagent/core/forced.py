"""An operator's word on /primary in place of the rules', for a bounded time.

Off needs nothing. On is a permission, and so it needs evidence too: PostgreSQL is a primary by fresh
evidence and takes writes, of the cluster that is meant, on the timeline that the operator spoke of, and
what the others must learn is on disk. It takes the place of what only a person can judge: a newer timeline
that is gone, a conflict, silence. It never makes two of them serve: who is heard serving ends it, a drain is
waited for, and this node first stops yielding for so long that nobody can still serve by its word.
"""

from healthagent.core.evidence import decide_running
from healthagent.core.members import heard, last_round
from healthagent.core.model import Instant, Reason, Role, Verdict
from healthagent.core.view import Override, Policy, View


def override_of(view: View) -> Override | None:
    """The override while it is in force."""
    override = view.memory.override
    return override if override is not None and view.now < override.until else None


def kept_override(view: View, policy: Policy) -> Override | None:
    """The override after the evidence in `view`: what ends one that says on does not begin again."""
    override, snapshot, term = override_of(view), view.local.snapshot, view.memory.term
    if override is None or not override.on:
        return override
    if snapshot is not None and snapshot.role is Role.REPLICA:
        return None
    if term is not None and term.timeline != override.timeline:
        return None
    return None if serving_elsewhere(view, policy) is not None else override


def serving_elsewhere(view: View, policy: Policy) -> str | None:
    """Who else answers 200 on /primary by its own word, and is heard."""
    for peer in view.peers:
        statement = heard(peer, view.now, policy)
        if statement is not None and statement.serving:
            return peer.label
    return None


def objection(view: View, policy: Policy) -> str | None:
    """Why an operator may not force this node on at this moment."""
    snapshot = view.local.snapshot
    if snapshot is None or snapshot.timeline is None or snapshot.role is not Role.PRIMARY:
        return "PostgreSQL is no primary here"
    if not decide_running(view, policy).ok:
        return "PostgreSQL is no primary here by fresh evidence"
    other = serving_elsewhere(view, policy)
    if other is None:
        return None
    return (
        f"{other} answers 200 on /primary: take it out of service first (healthagent maintenance on, there)"
    )


def forced_off(override: Override, now: Instant) -> Verdict:
    detail = f"{override.said} took writes away from this node, for another {override.until - now:.0f} s"
    return Verdict(False, Reason.FORCED_OFF, detail)


def forced_on(override: Override) -> Verdict:
    return Verdict(
        True, Reason.FORCED_ON, f"primary on timeline {override.timeline}, forced by {override.said}"
    )


def too_early(override: Override, view: View, policy: Policy) -> Verdict | None:
    """Refuse until every peer was asked when nobody could serve any more by our word that we yield."""
    if not any(peer.counts for peer in view.peers):
        return None
    last, void_at = last_round(view), override.since + policy.peer_max_age
    if last is not None and last.begun_at >= void_at:
        return None
    return Verdict(
        False,
        Reason.START_GATE,
        f"forced on {view.now - override.since:.1f} s ago: every peer is asked once more "
        f"{policy.peer_max_age:g} s after that, lest two serve",
    )
