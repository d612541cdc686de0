"""Which of several primaries is the rightful one, when anybody can tell.

Three signals, each naming one candidate or abstaining: the unique highest timeline
(the last promotion is usually the operator's latest act), the one that a majority of
the other data nodes stream from, and the only one that clients were sent to. A clear
winner has strictly more of them than every other; on a tie nobody wins, and all wait
for a person. Never a name, an LSN or a start time: each would let chance decide.

A signal that has spoken keeps speaking while it merely becomes unknown, so a dying
follower or a restarting agent never turns a decision; only another word does.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from healthagent.core.members import heard, snapshot_of, stale
from healthagent.core.model import Reason, Role, Snapshot
from healthagent.core.peer import Candidate, Peer
from healthagent.core.view import Conflict, Policy, Rival, Signals, View

_NO_PRIMARY = (Reason.POSTGRES_DOWN, Reason.NOT_PRIMARY)  # reasons that end a rival without its snapshot


def rival_of(peer: Peer, view: View, policy: Policy) -> Candidate | None:
    """The peer as a rival: by fresh evidence a primary of our cluster, and no stale one."""
    snapshot = snapshot_of(peer, view.now, policy)
    own = view.memory.term
    if snapshot is None or own is None or snapshot.role is not Role.PRIMARY or snapshot.timeline is None:
        return None
    if snapshot.system_identifier != own.system_identifier:
        return None
    if stale(snapshot.timeline, snapshot.system_identifier, view.memory):
        return None
    return Candidate(peer.label, snapshot.timeline)


def resolve(view: View, policy: Policy) -> Conflict | None:
    """The conflict as it stands now, or None when this node has no rival."""
    term, known = view.memory.term, view.memory.conflict
    if term is None:
        return known
    own = Candidate(view.name, term.timeline)
    rivals = _rivals(own, view, policy)
    if not rivals:
        return None
    candidates = [own, *(rival.candidate for rival in rivals)]
    before, now = _before(rivals, known), _signals(candidates, view, policy)
    signals = Signals(
        timeline=now.timeline,
        followers=_kept(now.followers, before.followers, candidates),
        incumbent=_kept(now.incumbent, before.incumbent, candidates),
    )
    return Conflict(rivals, signals, None if policy.demote_all else _winner(candidates, signals))


def _rivals(own: Candidate, view: View, policy: Policy) -> tuple[Rival, ...]:
    conflict = view.memory.conflict
    known = {rival.candidate.name for rival in conflict.rivals} if conflict is not None else set()
    present = {
        candidate.name: Rival(candidate, view.now)
        for peer in view.peers
        if (candidate := rival_of(peer, view, policy)) is not None
        and (candidate.name in known or _seen_in_this_term(peer, view, policy))
    }
    if conflict is not None:
        for rival in conflict.rivals:
            name = rival.candidate.name
            if name not in present and _counts_though_unseen(rival, own, conflict, view, policy):
                present[name] = rival
    return tuple(present[name] for name in sorted(present))


def _seen_in_this_term(peer: Peer, view: View, policy: Policy) -> bool:
    """Whether the evidence is younger than our being a primary.

    The old primary of every failover was one until then. That alone is no conflict, which
    its silence from now on would never end.
    """
    evidence, term = heard(peer, view.now, policy) or peer.asked_directly, view.memory.term
    return evidence is not None and term is not None and evidence.asked_at >= term.since


def _counts_though_unseen(
    rival: Rival, own: Candidate, conflict: Conflict, view: View, policy: Policy
) -> bool:
    """Whether a rival that does not show itself as a primary now is one all the same."""
    if conflict.winner == rival.candidate:
        return view.now - rival.primary_at < policy.takeover_after  # the winner may come back
    if conflict.winner not in (None, own):
        return False
    peer = next((peer for peer in view.peers if peer.label == rival.candidate.name), None)
    if peer is None:
        # an operator removed it from the configuration; that DNS does not name it says nothing
        return policy.expected_members is not None
    if snapshot_of(peer, view.now, policy) is not None:
        return False  # a replica, or stale, or of another cluster
    statement = heard(peer, view.now, policy)
    if conflict.winner == own or statement is None or statement.reason not in _NO_PRIMARY:
        return True  # silence ends nothing, nor does a server that hangs: what was decided stays decided
    # down, says its agent: believed once it has lasted longer than a restart
    return view.now - rival.primary_at < policy.drain


def _before(rivals: Iterable[Rival], known: Conflict | None) -> Signals:
    """What the signals said of these very timelines."""
    if known is None or not {rival.candidate for rival in rivals} <= {one.candidate for one in known.rivals}:
        return Signals()
    return known.signals


def _kept(now: Candidate | None, before: Candidate | None, candidates: list[Candidate]) -> Candidate | None:
    return now if now is not None else before if before in candidates else None


def _signals(candidates: list[Candidate], view: View, policy: Policy) -> Signals:
    return Signals(
        timeline=_only(_highest(candidates)),
        followers=_followed(candidates, view, policy),
        incumbent=_only([one for one in candidates if _serves(one, view, policy)]),
    )


def _only(named: list[Candidate]) -> Candidate | None:
    return named[0] if len(named) == 1 else None


def _highest(candidates: list[Candidate]) -> list[Candidate]:
    top = max(candidate.timeline for candidate in candidates)
    return [candidate for candidate in candidates if candidate.timeline == top]


def _serves(candidate: Candidate, view: View, policy: Policy) -> bool:
    """Whether it serves, or served this timeline at most `takeover_after` ago."""
    if candidate.name == view.name:
        occasions = [view.memory.served]
    else:
        peer = next((peer for peer in view.peers if peer.label == candidate.name), None)
        occasions = [peer.heard_serving, peer.statement.served if peer.statement else None] if peer else []
    return any(
        served is not None
        and served.timeline == candidate.timeline
        and view.now - served.at <= policy.takeover_after
        for served in occasions
    )


def _followed(candidates: list[Candidate], view: View, policy: Policy) -> Candidate | None:
    """The candidate that a majority of the configured data nodes other than the candidates stream from."""
    names = {candidate.name for candidate in candidates}
    voters = [peer for peer in view.peers if not peer.witness and peer.counts and peer.label not in names]
    votes = [upstream(snapshot_of(peer, view.now, policy), view) for peer in voters]
    for candidate in candidates:
        if votes.count(candidate.name) > len(voters) / 2:
            return candidate
    return None


def upstream(snapshot: Snapshot | None, view: View) -> str | None:
    """The member that a replica streams from, if it streams and its sender is a member's address."""
    if snapshot is None or snapshot.role is not Role.REPLICA or not snapshot.streaming:
        return None
    receiver = snapshot.receiver
    if receiver is None or receiver.host is None or receiver.port is None:
        return None
    return _owner(receiver.addresses or (receiver.host,), receiver.port, view)


def _owner(hosts: Iterable[str], port: int, view: View) -> str | None:
    wanted = {(spelled(host), port) for host in hosts}
    for name, addresses in view.addresses.items():
        if wanted & addresses:
            return name
    return None


@lru_cache(maxsize=1024)
def spelled(host: str) -> str:
    """One spelling of an address; a name stays a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _winner(candidates: list[Candidate], signals: Signals) -> Candidate | None:
    ranked = sorted(candidates, key=signals.votes, reverse=True)
    return ranked[0] if signals.votes(ranked[0]) > signals.votes(ranked[1]) else None


def spelled_signals(signals: Signals) -> str:
    """The three signals as an operator reads them."""
    named = (
        f"{what} {'names nobody' if who is None else f'names {who.name}'}"
        for what, who in (
            ("highest timeline", signals.timeline),
            ("majority of followers", signals.followers),
            ("serving lately", signals.incumbent),
        )
    )
    return ", ".join(named)


def lost_to(view: View) -> Candidate | None:
    """The winner of a conflict that this node lost."""
    conflict, term = view.memory.conflict, view.memory.term
    if conflict is None or term is None or conflict.winner is None:
        return None
    return None if conflict.winner == Candidate(view.name, term.timeline) else conflict.winner
