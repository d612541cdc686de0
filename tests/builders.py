"""One-line values with sane defaults for tests of the rules; what a test is about, it names.

Everything happens at `NOW` unless said otherwise, and ages are given as such: a statement of
`age=2.001` was asked for 2.001 s before NOW. The defaults make an undisturbed cluster of three:
pg1 is this node, a primary that has long been serving; pg2 and pg3 follow it.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from healthagent.core.members import hear
from healthagent.core.model import Failure, Instant, Local, Reason, Receiver, Role, Snapshot
from healthagent.core.peer import Call, Candidate, Peer, Served, Source, Statement
from healthagent.core.view import Memory, Policy, Term, View

NOW: Instant = 1000.0
SYSTEM = 7300000000000000001
OTHER_SYSTEM = 7300000000000000002
PORT = 5432
LATENCY = 0.01  # seconds between a question to a peer and its answer

PRIMARY, REPLICA = Role.PRIMARY, Role.REPLICA


def address(name: str) -> str:
    """The address of a member's PostgreSQL: pg3 lives on 10.0.0.3."""
    return f"10.0.0.{name.removeprefix('pg').removeprefix('w')}"


def addresses(*names: str) -> dict[str, frozenset[tuple[str, int]]]:
    """The address book of a view."""
    return {name: frozenset({(address(name), PORT)}) for name in names}


def snap(role: Role = PRIMARY, timeline: int | None = 1, *, age: float = 0.1, **more: Any) -> Snapshot:
    """What a PostgreSQL says of itself, `age` seconds before NOW; a primary has written 1000 bytes."""
    wal = {"insert_lsn": 1000, "flush_lsn": 1000} if role is PRIMARY else {}
    values: dict[str, Any] = {
        "asked_at": NOW - age,
        "role": role,
        "system_identifier": SYSTEM,
        "timeline": timeline,
    }
    return Snapshot(**values | wal | more)


def follower(of: str | None = "pg1", timeline: int | None = 1, *, age: float = 0.1, **more: Any) -> Snapshot:
    """A replica that streams from a member, and has replayed all of it."""
    receiver = None
    if of is not None:
        receiver = Receiver("streaming", host=address(of), port=PORT, timeline=timeline, latest_end_lsn=1000)
    values: dict[str, Any] = {"receiver": receiver, "received_lsn": 1000, "replayed_lsn": 1000}
    return snap(REPLICA, timeline, age=age, **values | more)


def statement(
    name: str = "pg2",
    snapshot: Snapshot | None = None,
    *,
    serving: bool = False,
    age: float = 0.3,
    **more: Any,
) -> Statement:
    """What a member says of itself, asked for `age` seconds before NOW and answered at once."""
    values: dict[str, Any] = {
        "asked_at": NOW - age,
        "received_at": NOW - age + LATENCY,
        "source": Source.AGENT,
        "cluster": "main",
        "name": name,
        "incarnation": f"start of {name}",
        "started_at": NOW - 500,
        "snapshot": snapshot,
        "reason": Reason.PRIMARY if serving else Reason.NOT_PRIMARY,
        "serving": serving,
        "address": f"{address(name)}:{PORT}",
    }
    return Statement(**values | more)


def peer(
    name: str = "pg2", said: Statement | None = None, *, called: float | None = 0.3, **more: Any
) -> Peer:
    """A member and its last statement; the last call to it began `called` seconds before NOW."""
    call = None if called is None else Call(NOW - called, NOW - called + LATENCY)
    known = Peer(name) if said is None else hear(Peer(name), said)
    return replace(known, last_call=call, **more)


def following(name: str = "pg2", of: str = "pg1", **more: Any) -> Peer:
    """A member whose PostgreSQL streams from another."""
    return peer(name, statement(name, follower(of, age=0.4), **more))


def rival(
    name: str = "pg2",
    timeline: int = 2,
    *,
    serving: bool = False,
    yields_to: Candidate | None = None,
    age: float = 0.3,
    **more: Any,
) -> Peer:
    """A member whose PostgreSQL is a primary too."""
    said = statement(
        name, snap(timeline=timeline, age=age + 0.1), serving=serving, yields_to=yields_to, age=age, **more
    )
    return peer(name, said)


def silent(name: str = "pg2", *, called: float = 1.2, **more: Any) -> Peer:
    """A member that was never heard; the last call to it ran out of time."""
    missed = Call(NOW - called, NOW - called + 1.0)
    values: dict[str, Any] = {"name": name, "silent_since": NOW - 100, "last_call": missed}
    return Peer(**values | more)


def witness(name: str = "w9", *, age: float = 0.3, **more: Any) -> Peer:
    """A member without PostgreSQL, heard lately."""
    return peer(name, statement(name, age=age, reason=Reason.WITNESS, witness=True), witness=True, **more)


def term(timeline: int = 1, *, since: float = 100.0, newly: bool = False, **more: Any) -> Term:
    """A stretch as primary that began `since` seconds before NOW."""
    values: dict[str, Any] = {
        "system_identifier": SYSTEM,
        "timeline": timeline,
        "since": NOW - since,
        "seen_at": NOW - 0.1,
        "newly": newly,
    }
    return Term(**values | more)


def served(timeline: int = 1, *, ago: float = 0.1) -> Served:
    """A node's last 200 on /primary."""
    return Served(SYSTEM, timeline, NOW - ago)


def memory(**more: Any) -> Memory:
    """Of an agent that has served timeline 1 for a while, unless said otherwise."""
    values: dict[str, Any] = {
        "started_at": NOW - 500,
        "high_water": {SYSTEM: 1},
        "saved_high_water": {SYSTEM: 1},
        "term": term(),
        "served": served(),
        "serving": True,
    }
    return Memory(**values | more)


def newly(timeline: int = 1, *, since: float = 1.0, mark: int | None = None, **more: Any) -> Memory:
    """Of an agent whose PostgreSQL became primary `since` seconds before NOW; `mark` is on disk."""
    high_water = {SYSTEM: timeline if mark is None else mark}
    values: dict[str, Any] = {
        "high_water": high_water,
        "saved_high_water": high_water,
        "term": term(timeline, since=since, newly=True),
        "served": None,
        "serving": False,
    }
    return memory(**values | more)


def local(snapshot: Snapshot | None = None, **more: Any) -> Local:
    """What is known of this node's PostgreSQL."""
    return Local(snapshot=snapshot, **more)


def failure(
    reason: Reason = Reason.POSTGRES_DOWN, detail: str = "connection refused", **more: Any
) -> Failure:
    """Why PostgreSQL could not be asked."""
    values: dict[str, Any] = {"reason": reason, "detail": detail, "at": NOW - 0.1}
    return Failure(**values | more)


def view(
    snapshot: Snapshot | None = None,
    peers: Iterable[Peer] | None = None,
    remembered: Memory | None = None,
    **more: Any,
) -> View:
    """Every input of one decision of pg1; by default an undisturbed primary with two followers."""
    members = (following("pg2"), following("pg3")) if peers is None else tuple(peers)
    values: dict[str, Any] = {
        "now": NOW,
        "name": "pg1",
        "local": local(snap() if snapshot is None else snapshot),
        "memory": memory() if remembered is None else remembered,
        "peers": members,
        "addresses": addresses("pg1", *(member.name for member in members)),
    }
    return View(**values | more)


def policy(**more: Any) -> Policy:
    """The defaults of the configuration, unless said otherwise."""
    return replace(Policy(), **more)
