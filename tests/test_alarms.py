"""What is wrong without changing a verdict; what is as it should be is no alarm."""

import pytest

from healthagent.alarms import alarms_of
from healthagent.board import Board, Identity
from healthagent.core.model import Snapshot
from healthagent.core.peer import Peer, Statement
from tests.builders import NOW, failure, follower, memory, policy, snap, statement

ME = "start of pg1"


def board(entry: str, said: Statement, discovered: bool = False) -> Board:
    chosen = policy(expected_members=2 if discovered else None)
    made = Board(Identity("pg1", "main", ME), chosen, memory(), [Peer(entry, discovered=discovered)])
    made.hear(entry, said, NOW)
    return made


@pytest.mark.parametrize(
    ("entry", "said", "discovered", "alarms"),
    [
        pytest.param("pg2", statement("pg2"), False, [], id="the peer that was meant"),
        pytest.param("pg1", statement("pg1", incarnation=ME), False, [], id="one list for all nodes"),
        pytest.param(
            "pg2",
            statement("pg1", incarnation=ME),
            False,
            ["peer pg2: self: this entry leads back to this agent"],
            id="this agent under the name of another",
        ),
        pytest.param("10.0.0.1:8008", statement("pg1", incarnation=ME), True, [], id="own address in DNS"),
        pytest.param(
            "pg2",
            statement("pg9"),
            False,
            ["peer pg2: wrong_name: it calls itself 'pg9'"],
            id="a wrong name",
        ),
        pytest.param(
            "pg2",
            statement("pg2", members_hash="another"),
            False,
            ["peer pg2: has another list of members; compare the `peers` of both"],
            id="another list of members",
        ),
        pytest.param(
            "10.0.0.2:8008",
            statement("pg1", incarnation="another start"),
            True,
            ["peer 10.0.0.2:8008: another agent has this node's name; give each a name of its own"],
            id="two nodes with one name",
        ),
    ],
)
def test_alarms_about_peers(entry: str, said: Statement, discovered: bool, alarms: list[str]) -> None:
    assert alarms_of(board(entry, said, discovered), None, NOW) == alarms


def test_alarms_about_this_node() -> None:
    made = board("pg2", statement("pg2"))
    made.observe(snap(missing=("pg_stat_replication",)), NOW)
    made.observe_new_connection(failure(detail="connection refused"), NOW)
    assert alarms_of(made, "/var/lib/x: disk full", NOW) == [
        "state: /var/lib/x: disk full",
        "postgres: new connections fail: connection refused",
        "postgres: the probe's role may not see pg_stat_replication; see `healthagent sql`",
    ]


@pytest.mark.parametrize(
    ("own", "of_peer", "age", "alarms"),
    [
        pytest.param(snap(timeline=2), snap(timeline=1, age=0.3), 0, True, id="two primaries, one stale"),
        pytest.param(snap(timeline=2), snap(timeline=1, age=0.3), 2.0, False, id="not heard any more"),
        pytest.param(snap(timeline=2), follower(), 0, False, id="a primary and its replica"),
        pytest.param(follower(), snap(timeline=2, age=0.3), 0, False, id="a replica and its primary"),
    ],
)
def test_several_primaries_in_sight_are_an_alarm(
    own: Snapshot, of_peer: Snapshot, age: float, alarms: bool
) -> None:
    made = board("pg2", statement("pg2", of_peer))
    made.observe(own, NOW)
    sentence = "several primaries: pg1 on timeline 2, pg2 on timeline 1; stop all but the right one"
    assert alarms_of(made, None, NOW + age) == ([sentence] if alarms else [])
