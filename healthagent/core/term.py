"""This node's own stretch as a primary: when it began, and what it has still to pass.

A term ends with the evidence for it. Who comes back after lost evidence begins another one,
and asks every peer anew: meanwhile a standby may have been promoted and told that we are down.
"""

from dataclasses import replace

from healthagent.core.members import heard_count, last_round, majority, member_count
from healthagent.core.model import Instant, Role
from healthagent.core.view import Policy, Term, View


def term_of(view: View, policy: Policy) -> Term | None:
    """The term after the evidence in `view`, None when this node is no primary."""
    snapshot, failure, term = view.local.snapshot, view.local.failure, view.memory.term
    if snapshot is not None and snapshot.role is Role.REPLICA:
        return None
    lost = failure is not None and failure.conclusive
    if snapshot is None or lost or snapshot.age(view.now) > policy.max_age:
        return replace(term, broken=True) if term and not term.broken else term
    if snapshot.timeline is None:
        return None
    if (
        term is not None
        and not term.broken
        and (term.system_identifier, term.timeline) == (snapshot.system_identifier, snapshot.timeline)
        and snapshot.asked_at - term.seen_at <= policy.max_age
    ):
        return term if term.seen_at == snapshot.asked_at else replace(term, seen_at=snapshot.asked_at)
    served = view.memory.served
    undisturbed = (
        served is not None
        and not served.forced
        and (served.system_identifier, served.timeline) == (snapshot.system_identifier, snapshot.timeline)
        and view.now - served.at <= policy.takeover_after
    )
    return Term(
        snapshot.system_identifier,
        snapshot.timeline,
        since=view.now,
        seen_at=snapshot.asked_at,
        newly=not undisturbed,
    )


def is_newly(view: View) -> bool:
    """Whether this primary has still to pass the start gate."""
    term, served = view.memory.term, view.memory.served
    return (
        term is not None
        and term.newly
        and not (
            served is not None
            and not served.forced  # an operator's word is not the gate
            and served.timeline == term.timeline
            and served.at >= term.since
        )
    )


def is_alone(view: View, policy: Policy) -> bool:
    """Whether this is a new primary of three or more members that has asked and hears no majority of them."""
    members = member_count(view, policy)
    if members < 3 or not is_newly(view) or heard_count(view, policy) >= majority(members):
        return False
    term = view.memory.term
    return term is not None and _round_since(view, term.since)


def round_complete(view: View) -> bool:
    """Whether every peer was asked, and answered or ran out of time, since this node is primary.

    Also since it heard a majority again: of those who come back the first must not be taken
    for all, while one that serves has not been asked yet.
    """
    term = view.memory.term
    if not any(peer.counts for peer in view.peers):
        return True
    return term is not None and _round_since(view, max(term.since, view.memory.alone_at))


def _round_since(view: View, instant: Instant) -> bool:
    last = last_round(view)
    return last is not None and last.begun_at >= instant
