"""Boards with evidence, for tests of what is said about it; the clock is the test's own."""

from dataclasses import dataclass, replace

from healthagent.board import Board, Identity
from healthagent.core.model import LagLimit, Receiver, Role, Snapshot
from healthagent.core.peer import Peer, Source, Statement
from healthagent.core.view import Memory, Policy

SYSTEM = 7710718678868212726
START = 1000.0  # CLOCK_BOOTTIME seconds: any moment
WRITTEN = 0x4000060  # how far the primary has written


@dataclass
class Clock:
    """Calling it tells the time; setting `now` passes it."""

    now: float = START

    def __call__(self) -> float:
        return self.now


PRIMARY = Snapshot(
    asked_at=START,
    role=Role.PRIMARY,
    system_identifier=SYSTEM,
    timeline=3,
    server_version=150018,
    insert_lsn=WRITTEN,
    flush_lsn=WRITTEN,
)


def replica(behind: int = 0, late: float | None = None, asked_at: float = START) -> Snapshot:
    """A streaming replica, `behind` bytes still to replay, its last replayed commit `late` seconds old."""
    return Snapshot(
        asked_at=asked_at,
        role=Role.REPLICA,
        system_identifier=SYSTEM,
        timeline=3,
        server_version=150018,
        received_lsn=WRITTEN,
        replayed_lsn=WRITTEN - behind,
        replay_age_seconds=late,
        receiver=Receiver("streaming", "10.0.0.1", 5432, 3, WRITTEN, "pg2"),
    )


def board(
    snapshot: Snapshot | None,
    limit: LagLimit | None = None,
    *,
    name: str = "pg1",
    cluster: str = "main",
    peers: tuple[Peer, ...] = (),
    witness: bool = False,
    hold: float = 5.0,
) -> Board:
    """An agent's board at START, without a state file."""
    policy = Policy(durable=False, lag_limit=limit or LagLimit(), witness=witness, hold=hold)
    made = Board(
        Identity(name, cluster, "00000000-0000-4000-8000-000000000001"), policy, Memory(START), peers
    )
    if snapshot is not None:
        made.observe(snapshot, START)
    return made


def says(
    name: str, snapshot: Snapshot | None, *, serving: bool = False, asked_at: float = START
) -> Statement:
    """What the peer `name` answers to a question of `asked_at`."""
    return Statement(
        asked_at=asked_at,
        received_at=asked_at,
        source=Source.AGENT,
        cluster="main",
        name=name,
        incarnation=f"of {name}",
        started_at=START - 100,
        snapshot=None if snapshot is None else replace(snapshot, asked_at=asked_at),
        reason="primary" if serving else "not_primary",
        serving=serving,
    )
