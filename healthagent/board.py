"""The one home of evidence. It stores what was seen and computes a verdict when asked.

Nothing here waits, reads a clock or stores a 200: every method takes `now`, and every
surface (HTTP, agent-check, metrics, logs, peers) asks the same functions.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from healthagent import __version__
from healthagent.core.evidence import decide_running, younger
from healthagent.core.members import (
    hear,
    heard,
    heard_count,
    joined,
    last_round,
    member_count,
    miss,
    refuse,
    snapshot_of,
)
from healthagent.core.memory import raise_high_water, remember, serve
from healthagent.core.model import Failure, Instant, Local, Reason, Role, Snapshot, Tag, Verdict
from healthagent.core.peer import Alarm, Call, Peer, Served, Source, Statement
from healthagent.core.primary import decide_primary
from healthagent.core.replica import PLAIN, Ask, decide_replica, decide_sync
from healthagent.core.view import Maintenance, Memory, Override, Policy, View
from healthagent.wire import (
    MAX_SENTENCE,
    CandidateSaid,
    HighWaterSaid,
    Message,
    ServedSaid,
    SightSaid,
    said_of,
)

SETTLED = 0.05  # seconds for which a memory without new evidence is reused: time only ever relaxes it
FROZEN = 0.5  # seconds that a call may overrun its budget on a busy machine
SAVE_SERVED_EVERY = 5.0  # seconds: how stale the stored last service may be


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this agent is to others."""

    name: str
    cluster: str
    incarnation: str
    address: str | None = None  # host:port of the PostgreSQL as other nodes reach it
    tags: Mapping[str, Tag] = field(default_factory=dict)


class Board:
    """Evidence of this node and its peers, and the verdicts that follow from it."""

    def __init__(
        self, identity: Identity, policy: Policy, memory: Memory, peers: Iterable[Peer] = ()
    ) -> None:
        self.identity = identity
        self.policy = policy
        self.memory = memory
        self.local = Local()
        self.peers: dict[str, Peer] = {peer.name: peer for peer in peers}
        self.stopping = False
        self.addresses: Mapping[str, frozenset[tuple[str, int]]] = {}
        self.evidence_version = 0  # grows with each piece of evidence: a rendered body is good until then
        # as an operator left them; the memory has None instead once they have ended by themselves
        self.operated: tuple[Maintenance | None, Override | None] = (memory.maintenance, memory.override)
        self._looked_at: Instant = float("-inf")

    # Evidence comes in.

    def observe(self, snapshot: Snapshot, now: Instant) -> None:
        """Take in what PostgreSQL said of itself."""
        if self.local.snapshot is None or snapshot.asked_at >= self.local.snapshot.asked_at:
            self._know(replace(self.local, snapshot=snapshot, failure=None), now)

    def observe_failure(self, failure: Failure, now: Instant) -> None:
        """Take in that PostgreSQL could not be asked."""
        self._know(replace(self.local, failure=failure), now)

    def observe_new_connection(self, failure: Failure | None, now: Instant) -> None:
        """Take in how opening one more connection went: None when it worked."""
        if failure is None:
            local = replace(self.local, new_connection_failure=None, new_connection_failures=0)
        else:
            # the server answered, only not to us: it takes connections (see the metric and the log)
            answered = failure.reason in (Reason.NO_CONNECTION_SLOT, Reason.AUTH_FAILED)
            local = replace(
                self.local,
                new_connection_failure=failure,
                new_connection_failures=0 if answered else self.local.new_connection_failures + 1,
            )
        self._know(local, now)

    def hear(self, entry: str, statement: Statement, now: Instant) -> None:
        """Take in what the peer behind a configured entry says, if it is that peer."""
        peer = self.peers.get(entry)
        if peer is None:
            return
        alarm = self._unfit(peer, statement, now)
        if alarm is None:
            self._know_peer(hear(peer, statement), now)
        else:  # whoever it is, the peer that was meant has not answered
            self._know_peer(refuse(miss(peer, statement.asked_at), *alarm), now)

    def misunderstand(self, entry: str, why: str, now: Instant) -> None:
        """Note an answer that cannot be read: it is no evidence; its silence is noted by `miss`."""
        peer = self.peers.get(entry)
        if peer is not None:
            self._know_peer(refuse(peer, Alarm.MISUNDERSTOOD, why), now)

    def miss(self, entry: str, asked_at: Instant, now: Instant) -> None:
        """Note that a question to a peer went unanswered."""
        peer = self.peers.get(entry)
        if peer is not None:
            self._know_peer(miss(peer, asked_at), now)

    def ask_directly(self, entry: str, snapshot: Snapshot, now: Instant) -> None:
        """Take in what a silent peer's PostgreSQL says itself."""
        peer = self.peers.get(entry)
        if peer is not None:
            self._know_peer(replace(peer, asked_directly=snapshot), now)

    def end_call(self, entry: str, begun_at: Instant, now: Instant) -> None:
        """Note that a question to a peer is over, however it ended.

        One that took far longer than its budget spanned a freeze of this agent: it says nothing of now.
        """
        peer = self.peers.get(entry)
        if peer is None or now - begun_at > self.policy.peer_timeout + FROZEN:
            return
        known = replace(peer, last_call=Call(begun_at, now))
        if self.memory.yields_to is not None:
            self._know_peer(known, now)
        else:  # whether to go on yielding is all that the end of a round decides
            self.peers[entry] = known
            self.evidence_version += 1

    def replace_peers(self, peers: Iterable[Peer], now: Instant) -> None:
        """Take a new list of peers; what is known of those that stay is kept.

        A newcomer does not undo the round of a primary that serves: it is asked at once, and until
        then nothing is known of it, which takes no one down.
        """
        asked = last_round(self._view(now)) if self.memory.serving else None
        self.peers = {
            peer.name: replace(self.peers[peer.name], witness=peer.witness)
            if peer.name in self.peers
            else replace(peer, last_call=asked)
            for peer in peers
        }
        self._changed(now)

    def go_on(self, memory: Memory, local: Local, peers: Mapping[str, Peer], now: Instant) -> None:
        """Take the place of a board of this very node: its memory, its evidence where it is the younger.

        What this board has seen itself stays where the other has not seen it later.
        """
        self.memory = memory
        self.operated = (memory.maintenance, memory.override)
        self.local = younger(local, self.local)
        for name, own in self.peers.items():
            other = peers.get(name)
            if other is not None:
                self.peers[name] = joined(other, own)
        self._changed(now)

    def _know(self, local: Local, now: Instant) -> None:
        self.local = local
        self._changed(now)

    def _know_peer(self, peer: Peer, now: Instant) -> None:
        self.peers[peer.name] = peer
        self._changed(now)

    def _changed(self, now: Instant) -> None:
        self.evidence_version += 1
        self.memory = remember(self._view(now), self.policy)
        self._looked_at = now

    def _unfit(self, peer: Peer, statement: Statement, now: Instant) -> tuple[Alarm, str] | None:
        """Why this statement is not what the entry promised."""
        if statement.source is not Source.AGENT:
            return None  # Patroni has names and scopes of its own; the system identifier tells clusters apart
        if statement.incarnation == self.identity.incarnation:
            return Alarm.SELF, "this entry leads back to this agent"
        if statement.cluster != self.identity.cluster:
            return Alarm.FOREIGN_CLUSTER, f"it belongs to cluster {statement.cluster!r}"
        for other in self.peers.values():
            # only while it answers there: an agent that has lost one of its addresses is known by the other
            known = heard(other, now, self.policy) if other.name != peer.name else None
            if known is not None and known.incarnation == statement.incarnation:
                return Alarm.DUPLICATE, f"the same agent answers under the entry {other.name!r}"
        if self.policy.expected_members is None and statement.name != peer.name:
            return Alarm.WRONG_NAME, f"it calls itself {statement.name!r}"
        return None

    # Verdicts go out.

    def _view(self, now: Instant) -> View:
        return View(
            now,
            self.identity.name,
            self.local,
            self.memory,
            tuple(self.peers.values()),
            self.stopping,
            self.addresses,
        )

    def view(self, now: Instant) -> View:
        """Every input of a decision at this moment."""
        if now - self._looked_at > SETTLED:
            self.memory = remember(self._view(now), self.policy)
            self._looked_at = now
        return self._view(now)

    def primary(self, now: Instant) -> Verdict:
        """May this node be given writes? Remembers that it said yes: others wait for our clients to leave."""
        view = self.view(now)
        verdict = decide_primary(view, self.policy)
        was_serving = self.memory.serving
        self.memory = serve(self.memory, verdict, view, self.policy)
        if was_serving != verdict.ok:
            self.evidence_version += 1
        return verdict

    def replica(self, now: Instant, ask: Ask = PLAIN) -> Verdict:
        """May this node be given reads?"""
        return decide_replica(self.view(now), self.policy, ask)

    def attached(self, now: Instant, wanted: str, ask: Ask = PLAIN) -> Verdict:
        """May this node be given reads, as a sync, async or quorum standby?"""
        return decide_sync(self.view(now), self.policy, wanted, ask)

    def running(self, now: Instant) -> Verdict:
        """Does PostgreSQL run, whatever its role?"""
        return decide_running(self.view(now), self.policy)

    def role(self, now: Instant) -> Role | None:
        """What PostgreSQL says that it is, by fresh evidence."""
        snapshot = self.local.snapshot
        return snapshot.role if snapshot is not None and self.running(now).ok else None

    # What must outlive the process.

    def unsaved_service(self, now: Instant) -> Served | None:
        """The timeline that waits for nothing but the state file before its first 200."""
        if self.primary(now).reason is not Reason.STATE_UNSAVED or self.memory.term is None:
            return None
        return Served(self.memory.term.system_identifier, self.memory.term.timeline, now)

    def saved(self, memory: Memory, now: Instant) -> None:
        """Note that `memory` is on disk."""
        mark = self.memory
        for identifier, timeline in memory.high_water.items():
            mark = raise_high_water(mark, Served(identifier, timeline, now))
        self.memory = mark
        self._changed(now)

    # What an operator changes.

    def maintain(self, maintenance: Maintenance | None, now: Instant) -> None:
        self.memory = replace(self.memory, maintenance=maintenance)
        self.operated = (maintenance, self.operated[1])
        self._changed(now)

    def force(self, override: Override | None, now: Instant) -> None:
        """Put an operator's verdict on /primary in place of the rules', or take it back."""
        self.memory = replace(self.memory, override=override)
        self.operated = (self.operated[0], override)
        self._changed(now)

    def forgive(self, now: Instant) -> list[str]:
        """Clear the latches of this node by an operator's word; returns what was cleared."""
        cleared, term = [], self.memory.term
        if term is not None and term.system_identifier is not None:
            mark = self.memory.high_water.get(term.system_identifier, 0)
            if term.timeline < mark:
                cleared.append(Reason.STALE_TIMELINE.value)
                self.memory = replace(self.memory, forgiven=(term.system_identifier, mark))
        if self.memory.conflict is not None:
            cleared.append("conflict")
            self.memory = replace(self.memory, conflict=None, yields_to=None)
        self._changed(now)
        return cleared

    def stop(self, now: Instant) -> None:
        """From now on every verdict is `stopping`."""
        self.stopping = True
        self._changed(now)

    # What the others are told.

    def members_hash(self) -> str:
        """A word for the configured member names: agents with different lists have different words.

        Where DNS names the members each agent knows the others by address: only their number is configured.
        """
        expected = self.policy.expected_members
        if expected is not None:
            return hashlib.sha256(f"{expected} by DNS".encode()).hexdigest()[:16]
        names = sorted({self.identity.name, *(peer.name for peer in self.peers.values() if peer.counts)})
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    def describe(self, now: Instant) -> Message:
        """This agent's description of itself, at this moment."""
        verdict = self.primary(now)
        reads = self.replica(now)
        memory, snapshot = self.memory, self._told(now, verdict.ok)
        served = memory.served
        not_serving_for = None if served is None or verdict.ok else now - _stopped_at(served, memory)
        return Message(
            cluster=self.identity.cluster,
            name=self.identity.name,
            incarnation=self.identity.incarnation,
            version=__version__,
            uptime=max(0.0, now - memory.started_at),
            serving=verdict.ok,
            witness=self.policy.witness,
            members_hash=self.members_hash(),
            address=self.identity.address,
            snapshot=None if snapshot is None else said_of(snapshot, now),
            not_serving_for=None if not_serving_for is None else max(0.0, not_serving_for),
            last_served=None if served is None else _said_served(served, now),
            yields_to=CandidateSaid(memory.yields_to.name, memory.yields_to.timeline)
            if memory.yields_to is not None
            else None,
            hwm=[HighWaterSaid(str(cluster), timeline) for cluster, timeline in memory.high_water.items()],
            reason=verdict.reason,
            detail=verdict.detail[:MAX_SENTENCE],
            replica_ok=reads.ok,
            replica_reason=reads.reason,
            tags=dict(self.identity.tags),
            sees=[self._sight(peer, now) for peer in self.peers.values()],
        )

    def _told(self, now: Instant, serving: bool) -> Snapshot | None:
        """Our snapshot as peers may know it.

        Until the first round is over this agent does not yet know to whom it yields. A
        primary that says so too early would look like one that yields to nobody, and take
        the rightful one down; before that round, or before DNS has named anybody to ask, it
        does not serve either.
        """
        view = self._view(now)
        if not serving and member_count(view, self.policy) > 1 and last_round(view) is None:
            return None
        return self.local.snapshot if self.running(now).ok else None

    def _sight(self, peer: Peer, now: Instant) -> SightSaid:
        statement, snapshot = heard(peer, now, self.policy), snapshot_of(peer, now, self.policy)
        return SightSaid(
            name=peer.name,
            heard=statement is not None,
            role=snapshot.role if snapshot else None,
            timeline=snapshot.timeline if snapshot else None,
            serving=statement is not None and statement.serving,
        )

    def members(self, now: Instant) -> tuple[int, int]:
        """How many members there are, and how many are heard, this one included in both."""
        view = self.view(now)
        return member_count(view, self.policy), heard_count(view, self.policy)


def _stopped_at(served: Served, memory: Memory) -> Instant:
    """When the last 200 was given, at the latest: a predecessor of this agent may have gone on after
    its last note in the state file, but not past the next note, nor past our start."""
    if served.at >= memory.started_at:
        return served.at
    return min(memory.started_at, served.at + SAVE_SERVED_EVERY)


def _said_served(served: Served, now: Instant) -> ServedSaid:
    identifier = None if served.system_identifier is None else str(served.system_identifier)
    return ServedSaid(served.timeline, max(0.0, now - served.at), identifier)
