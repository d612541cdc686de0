"""When a peer's PostgreSQL is asked directly; that it is, tests/live/test_peers.py shows."""

import asyncio
from dataclasses import replace

import pytest

from healthagent.board import Board, Identity
from healthagent.core.peer import Alarm, Peer
from healthagent.core.view import Memory
from healthagent.peers.direct import Direct, Directs
from healthagent.peers.resolve import Names
from tests.bed.boards import Clock
from tests.builders import NOW, follower, policy, silent, snap, statement


def direct(known: Peer, entry: str = "pg2") -> Direct:
    board = Board(Identity("pg1", "main", "start of pg1"), policy(), Memory(NOW - 500), [known])
    clock = Clock(NOW)
    return Direct(board, entry, {"dsn": "postgresql://"}, clock, Names(clock), interval=0.5, timeout=1.0)


def heard(*, age: float) -> Peer:
    return replace(Peer("pg2"), statement=statement("pg2", age=age))


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        pytest.param(heard(age=2.0), False, id="its agent answered lately"),
        pytest.param(heard(age=2.001), True, id="its agent is silent"),
        pytest.param(silent(), True, id="its agent was never heard"),
        pytest.param(replace(heard(age=0.1), alarm=Alarm.MISUNDERSTOOD), True, id="it cannot be understood"),
        pytest.param(replace(silent(), alarm=Alarm.SELF), False, id="the entry is this agent"),
        pytest.param(replace(silent(), alarm=Alarm.DUPLICATE), False, id="it is heard under another entry"),
        pytest.param(replace(silent(), alarm=Alarm.FOREIGN_CLUSTER), False, id="another cluster's agent"),
        pytest.param(replace(silent(), alarm=Alarm.WRONG_NAME), False, id="another agent"),
    ],
)
async def test_when_the_dsn_is_asked(known: Peer, asked: bool) -> None:
    assert direct(known)._silent() == asked


async def test_a_peer_that_a_reload_removed_is_not_asked() -> None:
    assert not direct(silent("pg3"), entry="pg2")._silent()


async def test_a_follower_asked_directly_names_its_upstream_by_address() -> None:
    asking = direct(silent())
    asking.observe(follower("pg1"))
    found = asking.board.peers["pg2"].asked_directly
    assert found is not None
    assert found.receiver is not None
    assert found.receiver.addresses == ("10.0.0.1",)


async def test_this_nodes_own_entry_with_a_dsn_is_no_rival() -> None:
    """One list for all nodes: what its DSN says is this very PostgreSQL."""
    asking = direct(Peer("pg1"), entry="pg1")
    board = asking.board
    board.observe(snap(age=0.0), NOW)
    board.hear("pg1", statement("pg1", incarnation="start of pg1"), NOW)
    asking.observe(snap(age=0.0))
    assert board.memory.conflict is None


async def test_new_durations_are_used_for_peers_that_are_asked_already() -> None:
    asked = direct(heard(age=0.1))
    directs = Directs(asked.board, Clock(NOW), asked._names, interval=0.5, timeout=1.0)
    directs.replace({"pg2": {"dsn": "postgresql://"}})
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(directs.run())
        await settled()
        first = directs._tasks["pg2"]
        directs.change(interval=0.5, timeout=1.0)  # the same: nobody is disturbed
        await settled()
        assert directs._tasks == {"pg2": first}
        directs.change(interval=0.2, timeout=0.4)
        await settled()
        assert first.cancelled()
        assert not directs._tasks["pg2"].done()
        task.cancel()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
