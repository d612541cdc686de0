"""What the next decision must know of the past: terms, high-water mark, conflicts, yielding.

`remember` is called after every piece of evidence and before every answer. Time alone
only ever relaxes what it returns (a grace that runs out, a winner that stays away), so
calling it late can refuse too long and can never permit too early.

The yielding protocol. A primary that is not serving says to whom it yields, from the
first moment that it shows itself as primary. It stops yielding only by a completed
decision that it wins, and serves only after every peer was asked since then and every
live rival has said, in answer to that, that it yields in turn. Two nodes therefore never
both hold the other's word: whoever stopped yielding later asks later, and hears no.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from healthagent.core.conflict import resolve
from healthagent.core.forced import kept_override, override_of
from healthagent.core.members import stale
from healthagent.core.model import Reason, Role, Verdict
from healthagent.core.peer import Candidate, Served
from healthagent.core.replica import follows_rightly, lag_within, on_right_timeline
from healthagent.core.term import is_alone, is_newly, round_complete, term_of
from healthagent.core.view import Conflict, Maintenance, Memory, Policy, View

KNOWN_CLUSTERS = 16  # system identifiers whose mark is kept: a bound, not a feature


def remember(view: View, policy: Policy) -> Memory:
    """The memory after the evidence in `view`."""
    view = _with(view, high_water=_high_water(view))
    view = _with(view, term=term_of(view, policy))
    view = _with(view, maintenance=_kept_maintenance(view), override=kept_override(view, policy))
    snapshot = view.local.snapshot
    if snapshot is not None and snapshot.role is Role.REPLICA:
        return _follow(_with(view, conflict=None, yields_to=None, forgiven=None), policy)
    view = _with(view, streamed_at=None, followed_at=None, on_timeline_at=None, lagged_at=None)
    if is_alone(view, policy):
        view = _with(view, alone_at=view.now)
    return _yield(_with(view, conflict=resolve(view, policy)), policy)


def _kept_maintenance(view: View) -> Maintenance | None:
    maintenance = view.memory.maintenance
    over = maintenance is not None and maintenance.until is not None and maintenance.until <= view.now
    return None if over else maintenance


def _with(view: View, **known: Any) -> View:
    """The view with this in its memory; the same one when nothing of it is new, as after most polls."""
    memory = view.memory
    if all(getattr(memory, name) == value for name, value in known.items()):
        return view
    return replace(view, memory=replace(memory, **known))


def serve(memory: Memory, verdict: Verdict, view: View, policy: Policy) -> Memory:
    """Note what was answered on /primary: the drain of others is counted from our last 200."""
    term = memory.term
    if not verdict.ok or term is None:
        return replace(memory, serving=False) if memory.serving else memory
    forced = verdict.reason is Reason.FORCED_ON
    served = Served(term.system_identifier, term.timeline, view.now, forced)
    memory = replace(memory, serving=True, served=served)
    return memory if policy.durable else raise_high_water(memory, served)


def raise_high_water(memory: Memory, served: Served, saved: bool = True) -> Memory:
    """Let the mark cover the timeline that is, or is about to be, served."""
    if served.system_identifier is None:
        return memory
    known, own = [(served.system_identifier, served.timeline)], served.system_identifier
    memory = replace(memory, high_water=_higher(memory.high_water, known, own))
    if not saved:
        return memory
    return replace(memory, saved_high_water=_higher(memory.saved_high_water, known, own))


def _higher(
    mark: Mapping[int, int], known: Sequence[tuple[int, int]], own: int | None = None
) -> Mapping[int, int]:
    """The mark raised by what is known; our own cluster always has a place in it."""
    if all(timeline <= mark.get(cluster, 0) for cluster, timeline in known):
        return mark
    merged = dict(mark)
    for cluster, timeline in known:
        if cluster in merged or cluster == own or len(merged) < KNOWN_CLUSTERS:
            merged[cluster] = max(merged.get(cluster, 0), timeline)
    return mark if merged == mark else merged


def _high_water(view: View) -> Mapping[int, int]:
    mark, local = view.memory.high_water, view.local.snapshot
    own = local.system_identifier if local else None
    for peer in view.peers:
        statement = peer.statement
        if statement is None or peer.alarm is not None:
            continue
        if statement.high_water:
            mark = _higher(mark, statement.high_water, own)
        snapshot = statement.snapshot
        if statement.serving and snapshot and snapshot.system_identifier and snapshot.timeline:
            mark = _higher(mark, [(snapshot.system_identifier, snapshot.timeline)], own)
    return mark


def _yield(view: View, policy: Policy) -> Memory:
    memory, term, conflict = view.memory, view.memory.term, view.memory.conflict
    if term is None:
        return memory
    own, override = Candidate(view.name, term.timeline), override_of(view)
    if override is not None and override.on:  # an operator wants this node to serve: it yields to nobody
        return memory if memory.yields_to is None else replace(memory, yields_to=None, yielded_until=view.now)
    if conflict is not None and conflict.winner not in (None, own):
        if not _is_gone(conflict, view, policy):
            return replace(memory, yields_to=conflict.winner)
        # a drain before this node takes over: should the winner still hear us, it learns of that
        return memory if memory.yields_to is None else replace(memory, yields_to=None, yielded_until=view.now)
    if memory.yields_to is not None:
        if round_complete(view) and _wins(conflict, own):
            return replace(memory, yields_to=None, yielded_until=view.now)
        return memory
    if memory.serving or not is_newly(view) or _settled(conflict, own, view):
        return memory
    return replace(memory, yields_to=_first_serving(view))


def _is_gone(conflict: Conflict, view: View, policy: Policy) -> bool:
    """Whether the winner has not been a primary for so long that this node soon takes over."""
    seen_at = max(rival.primary_at for rival in conflict.rivals if rival.candidate == conflict.winner)
    return seen_at < view.now and view.now - seen_at >= policy.takeover_after - policy.drain


def _wins(conflict: Conflict | None, own: Candidate) -> bool:
    return conflict is None or conflict.winner == own


def _settled(conflict: Conflict | None, own: Candidate, view: View) -> bool:
    """Whether a completed decision of this term said that this node wins."""
    term = view.memory.term
    return term is not None and view.memory.yielded_until >= term.since and _wins(conflict, own)


def _first_serving(view: View) -> Candidate | None:
    """A primary that was serving when it was last heard: it may have the clients still."""
    term = view.memory.term
    for peer in view.peers:
        statement = peer.statement
        if statement is None or peer.alarm is not None or not statement.serving or statement.timeline is None:
            continue
        snapshot = statement.snapshot
        if snapshot is None or term is None or snapshot.system_identifier != term.system_identifier:
            continue
        if not stale(snapshot.timeline, snapshot.system_identifier, view.memory):
            return Candidate(peer.label, statement.timeline)
    return None


def _follow(view: View, policy: Policy) -> Memory:
    """When this replica was last as it should be."""
    memory, snapshot, now = view.memory, view.local.snapshot, view.now
    if snapshot is None or snapshot.age(now) > policy.max_age:
        return memory
    replayed = snapshot.replayed_lsn
    progress = (
        snapshot.restores_from_archive
        and replayed is not None
        and memory.replayed_lsn is not None
        and replayed > memory.replayed_lsn
    )
    lagging = (
        not policy.lag_limit.unlimited and lag_within(view, policy, policy.lag_limit) is False
    )  # unknown is not above the limit: it has a refusal of its own
    return replace(
        memory,
        streamed_at=snapshot.asked_at if snapshot.streaming or progress else memory.streamed_at,
        replayed_lsn=replayed,
        followed_at=now if follows_rightly(view, policy) else memory.followed_at,
        on_timeline_at=now if on_right_timeline(view, policy) else memory.on_timeline_at,
        lagged_at=now if lagging else memory.lagged_at,
    )
