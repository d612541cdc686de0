"""What to ask of pgpool so that its view follows the agents: no clock, no I/O, no logging.

A refusal is carried out first and never rationed; a permission needs the agent's word, several
times in a row, and is rationed, because each attach and each promotion cuts clients' sessions.

1. An agent that is silent, or that pgpool's own look at the server contradicts, is unknown;
   nothing is done to its backend. pgpool's health check is there for dead hosts.
2. Refused `fall` polls in a row and attached: detach. All detaches of a round go together, with
   pgpool's primary last: its detach makes pgpool look for another primary at once.
3. Two agents that permit writes are both detached; nobody here chooses between them.
4. Exactly one agent permits writes, `rise` polls in a row: if its backend is down, attach it; if
   pgpool has no primary, or one that says that it is a replica or down (or a refused one that pgpool
   does not detach), promote it. pgpool does not check whom it is told to promote, so nothing else
   is ever promoted.
5. A replica that pgpool has down and whose agent permits reads, `rise` polls in a row: attach it.
   Replicas are detached for maintenance only, never for lag.
6. After a request its backend is left alone until pgpool shows the effect or `settle` is over. A
   request refused, or without effect twice, is reported and repeated only every `retry`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from healthagent.core.model import Instant
from healthagent.pgpool.model import Action, Kind, Observed, Says, Status

TRIES = 2  # pgpool ignores a request in its first second, so one without effect proves nothing


@dataclass(frozen=True, slots=True)
class Policy:
    """How soon and how often to act. Durations in seconds."""

    fall: int = 2  # polls in a row
    rise: int = 2  # polls in a row
    settle: float = 3.0  # a request must show its effect by then
    hold: float = 5.0  # from our detach of a backend to its attach
    per_minute: int = 3  # attaches and promotions of one backend
    retry: float = 60.0  # between tries of a request that pgpool does not carry out
    fence: bool = True  # False: never detach


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that pgpool accepted and whose effect does not show yet."""

    kind: Kind
    at: Instant


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that pgpool refused, or accepted without effect."""

    kind: Kind
    times: int
    retry_at: Instant
    why: str


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one backend."""

    says: Says = Says.UNKNOWN
    polls: int = 0  # in a row with that word
    contradictions: int = 0  # in a row
    sent: Sent | None = None
    failed: Failed | None = None
    detached_at: Instant | None = None  # by us
    permitted_at: tuple[Instant, ...] = ()  # our attaches and promotions of the last minute


Memory = Mapping[int, Past]


@dataclass(frozen=True, slots=True)
class Round:
    """The outcome of one round. `memory` does not know the actions yet: see `noted`."""

    actions: tuple[Action, ...]
    memory: Memory
    alarms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One backend now and before."""

    now: Observed
    past: Past

    def steadily(self, says: Says, polls: int) -> bool:
        return self.past.says is says and self.past.polls >= polls

    @property
    def attached(self) -> bool:
        return self.now.backend.status.attached

    def __str__(self) -> str:
        return f"{self.now.name} (backend {self.now.index})"


def reconcile(observed: Sequence[Observed], memory: Memory, now: Instant, policy: Policy) -> Round:
    """Compare pgpool with the agents and say what to ask of pgpool, in that order, on one connection."""
    nodes = [Node(seen, _remember(memory.get(seen.index, Past()), seen, now, policy)) for seen in observed]
    actions = _detaches(nodes, now, policy) or _primary(nodes, now, policy) or _attaches(nodes, now, policy)
    return Round(actions, {node.now.index: node.past for node in nodes}, _alarms(nodes, now, policy))


def noted(memory: Memory, action: Action, now: Instant, policy: Policy, refusal: str | None = None) -> Memory:
    """The memory after an action that pgpool accepted, or refused in the words of `refusal`."""
    past = memory[action.index]
    if refusal is not None:
        past = replace(past, failed=Failed(action.kind, TRIES, now + policy.retry, refusal))
    elif action.kind is Kind.DETACH:
        past = replace(past, sent=Sent(action.kind, now), detached_at=now)
    else:
        past = replace(past, sent=Sent(action.kind, now), permitted_at=(*past.permitted_at, now))
    return {**memory, action.index: past}


def _remember(past: Past, seen: Observed, now: Instant, policy: Policy) -> Past:
    """Count what the agent says, and settle what was sent."""
    says = Says.UNKNOWN if seen.contradicted else seen.told.says
    past = replace(
        past,
        says=says,
        polls=past.polls + 1 if says is past.says else 1,
        contradictions=past.contradictions + 1 if seen.contradicted else 0,
        permitted_at=tuple(at for at in past.permitted_at if now - at < 60),
    )
    if past.failed is not None and _shows(past.failed.kind, seen):
        past = replace(past, failed=None)
    if past.sent is None:
        return past
    if _shows(past.sent.kind, seen):
        return replace(past, sent=None)
    if now - past.sent.at < policy.settle:
        return past
    again = past.failed is not None and past.failed.kind is past.sent.kind
    times = past.failed.times + 1 if again and past.failed is not None else 1
    retry_at = now if times < TRIES else now + policy.retry
    why = f"it was accepted {times} times and had no effect within {policy.settle:g} s"
    return replace(past, sent=None, failed=Failed(past.sent.kind, times, retry_at, why))


def _shows(kind: Kind, seen: Observed) -> bool:
    attached = seen.backend.status.attached
    if kind is Kind.DETACH:
        return not attached
    return attached and (kind is Kind.ATTACH or seen.backend.is_primary)


def _detaches(nodes: Sequence[Node], now: Instant, policy: Policy) -> tuple[Action, ...]:
    if not policy.fence:
        return ()
    refused = [(node, node.now.told.why) for node in nodes if node.steadily(Says.REFUSED, policy.fall)]
    serving = [node for node in nodes if node.steadily(Says.PRIMARY, policy.fall)]
    if len(serving) > 1:
        refused += [(node, f"{len(serving)} agents permit writes") for node in serving]
    due = [(node, why) for node, why in refused if node.attached and not _waits(node, Kind.DETACH, now)]
    due.sort(key=lambda pair: pair[0].now.backend.is_primary)
    return tuple(Action(Kind.DETACH, node.now.index, f"{node} is refused: {why}") for node, why in due)


def _primary(nodes: Sequence[Node], now: Instant, policy: Policy) -> tuple[Action, ...]:
    serving = [node for node in nodes if node.past.says is Says.PRIMARY]
    if len(serving) != 1 or not serving[0].steadily(Says.PRIMARY, policy.rise):
        return ()
    primary = serving[0]
    if primary.now.backend.status is Status.DOWN:
        return _permit(primary, Kind.ATTACH, f"{primary} is the primary and pgpool has it down", now, policy)
    current = [node for node in nodes if node.now.backend.is_primary and node.attached]
    if not primary.attached or primary in current:
        return ()
    if not current:
        return _permit(primary, Kind.PROMOTE, f"{primary} is the primary and pgpool has none", now, policy)
    if current[0].past.says in (Says.REPLICA, Says.UNFIT_REPLICA, Says.DOWN) or _undetachable(current[0]):
        why = f"{primary} is the primary; pgpool writes to {current[0]}, which says {current[0].past.says}"
        return _permit(primary, Kind.PROMOTE, why, now, policy)
    return ()


def _attaches(nodes: Sequence[Node], now: Instant, policy: Policy) -> tuple[Action, ...]:
    if any(node.past.sent is not None and node.past.sent.kind is Kind.PROMOTE for node in nodes):
        return ()  # it will put every other backend down; an attach before that is lost
    return tuple(
        action
        for node in nodes
        if node.steadily(Says.REPLICA, policy.rise) and node.now.backend.status is Status.DOWN
        for action in _permit(node, Kind.ATTACH, f"{node} is a replica and pgpool has it down", now, policy)
    )


def _permit(node: Node, kind: Kind, why: str, now: Instant, policy: Policy) -> tuple[Action, ...]:
    """The action, unless it must wait. One that waits does not hold up the others."""
    if _waits(node, kind, now) or node.past.sent is not None or _login_fails(node):
        return ()
    if node.past.detached_at is not None and now - node.past.detached_at < policy.hold:
        return ()
    return () if _rationed(node, policy) else (Action(kind, node.now.index, why),)


def _waits(node: Node, kind: Kind, now: Instant) -> bool:
    sent, failed = node.past.sent, node.past.failed
    if sent is not None and sent.kind is kind:
        return True
    return failed is not None and failed.kind is kind and now < failed.retry_at


def _undetachable(node: Node) -> bool:
    failed = node.past.failed
    refused = node.past.says is Says.REFUSED
    return refused and failed is not None and failed.kind is Kind.DETACH and failed.times >= TRIES


def _login_fails(node: Node) -> bool:
    return node.now.live is not None and node.now.live.can_log_in is False


def _rationed(node: Node, policy: Policy) -> bool:
    return len(node.past.permitted_at) >= policy.per_minute


def _alarms(nodes: Sequence[Node], now: Instant, policy: Policy) -> tuple[str, ...]:
    """What a person should know, in words that change only when the matter does."""
    alarms = []
    serving = [str(node) for node in nodes if node.past.says is Says.PRIMARY]
    if len(serving) > 1:
        alarms.append(f"{' and '.join(serving)} all answer 200 on /primary; none of them is chosen")
    for node in nodes:
        failed = node.past.failed
        if failed is not None and failed.times >= TRIES and now < failed.retry_at:
            alarms.append(f"{node}: pgpool does not {failed.kind} it: {failed.why}")
        if node.past.contradictions > policy.fall:
            seen = f"the agent says {node.now.told.role}, the server told pgpool otherwise"
            alarms.append(f"{node}: {seen}; is this agent assigned to the right backend?")
        if node.attached or node.past.says not in (Says.PRIMARY, Says.REPLICA):
            continue
        if _login_fails(node):
            alarms.append(f"{node}: not attached, because pgpool cannot log in to it")
        elif _rationed(node, policy):
            alarms.append(
                f"{node}: not attached, because it was {policy.per_minute} times in the last minute"
            )
    return tuple(alarms)
