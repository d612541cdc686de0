"""Patroni's JSON, field for field: names, types, and what is left out when false or unknown.

The bodies of a running Patroni 4.1.5 are the measure, less what only a DCS knows (`dcs_last_seen`).
"""

from dataclasses import replace
from typing import Any

import pytest

from healthagent import __version__
from healthagent.board import Board
from healthagent.core.model import Failure, Follower, Reason, Receiver, Role, Snapshot
from healthagent.core.peer import Peer
from healthagent.core.view import Maintenance
from healthagent.server.patroni import COMPATIBLE_WITH, cluster_json, node_json, shown_tags
from healthagent.server.places import Place
from tests.bed.boards import PRIMARY, START, SYSTEM, WRITTEN, board, replica, says

SINCE = "2026-11-21 20:06:33.798321+00:00"
LEADS = replace(
    PRIMARY,
    timeline=1,
    flush_lsn=67108960,
    postmaster_started_at=SINCE,
    followers=(Follower("replicator", "n3", "127.0.0.1", "streaming", "async", 0),),
)
FOLLOWS = Snapshot(
    asked_at=START,
    role=Role.REPLICA,
    system_identifier=SYSTEM,
    timeline=1,
    server_version=150018,
    postmaster_started_at=SINCE,
    received_lsn=67108960,
    replayed_lsn=67108900,
    receiver=Receiver("streaming", "127.0.0.1", 5432, 1, 67108960, "n3"),
)
PATRONI = {"version": COMPATIBLE_WITH, "scope": "hp", "name": "n1"}


def named(snapshot: Snapshot | None, **more: Any) -> Board:
    return board(snapshot, name="n1", cluster="hp", **more)


def with_tags(made: Board, **tags: Any) -> Board:
    made.identity = replace(made.identity, tags=tags)
    return made


def test_a_primary() -> None:
    made = with_tags(named(LEADS), zone="az1", weight=10, ssd=True)
    assert node_json(made, START) == {
        "state": "running",
        "postmaster_start_time": SINCE,
        "role": "primary",
        "server_version": 150018,
        "xlog": {"location": 67108960},
        "timeline": 1,
        "replication": [
            {
                "usename": "replicator",
                "application_name": "n3",
                "client_addr": "127.0.0.1",
                "state": "streaming",
                "sync_state": "async",
                "sync_priority": 0,
            }
        ],
        "tags": {"zone": "az1", "weight": 10, "ssd": True},
        "database_system_identifier": "7710718678868212726",
        "patroni": PATRONI,
        "healthagent": {"version": __version__},
    }


def test_a_replica() -> None:
    assert node_json(named(FOLLOWS), START) == {
        "state": "running",
        "postmaster_start_time": SINCE,
        "role": "replica",
        "server_version": 150018,
        "xlog": {
            "received_location": 67108960,
            "replayed_location": 67108900,
            "replayed_timestamp": None,
            "paused": False,
        },
        "timeline": 1,
        "replication_state": "streaming",
        "database_system_identifier": "7710718678868212726",
        "patroni": PATRONI,
        "healthagent": {"version": __version__},
    }


def test_a_replica_says_when_it_replays_from_the_archive_or_from_nowhere_and_that_it_is_paused() -> None:
    restores = replace(FOLLOWS, receiver=None, restores_from_archive=True, replay_paused=True)
    body: Any = node_json(named(restores), START)
    assert body["replication_state"] == "in archive recovery"
    assert body["xlog"]["paused"] is True
    assert "replication_state" not in node_json(named(replace(FOLLOWS, receiver=None)), START)


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        pytest.param(Reason.POSTGRES_STARTING, "starting"),
        pytest.param(Reason.POSTGRES_DOWN, "stopped"),
        pytest.param(Reason.AUTH_FAILED, "unknown"),
        pytest.param(Reason.NO_CONNECTION_SLOT, "unknown"),
    ],
)
def test_a_server_that_does_not_answer_keeps_its_role_and_identity_only(reason: Reason, state: str) -> None:
    made = named(LEADS)
    made.observe_failure(Failure(reason, "as the test says", START), START)
    assert node_json(made, START) == {
        "state": state,
        "role": "primary",
        "database_system_identifier": "7710718678868212726",
        "patroni": PATRONI,
        "healthagent": {"version": __version__},
    }


def test_a_server_that_never_answered_has_neither() -> None:
    assert node_json(named(None), START) == {
        "state": "unknown",
        "role": "uninitialized",
        "patroni": PATRONI,
        "healthagent": {"version": __version__},
    }


def test_maintenance_is_a_pause_until_it_is_over() -> None:
    made = named(LEADS)
    made.maintain(Maintenance(START + 1), START)
    assert node_json(made, START + 0.999)["pause"] is True
    assert cluster_json(made, {}, START + 0.999)["pause"] is True
    assert "pause" not in node_json(made, START + 1)
    assert "pause" not in cluster_json(made, {}, START + 1)
    made.maintain(Maintenance(None), START)
    assert node_json(made, START + 1)["pause"] is True


@pytest.mark.parametrize(
    ("tags", "shown"),
    [
        pytest.param({"zone": "az1", "rank": 0}, {"zone": "az1", "rank": 0}, id="tags of one's own"),
        pytest.param({"noloadbalance": False}, {}, id="a false flag of Patroni's"),
        pytest.param({"noloadbalance": True}, {"noloadbalance": True}, id="a true one"),
        pytest.param({"nofailover": False}, {}, id="nofailover false"),
        pytest.param(
            {"nofailover": False, "failover_priority": 1},
            {"nofailover": False, "failover_priority": 1},
            id="nofailover false beside a priority",
        ),
        pytest.param(
            {"nosync": False, "sync_priority": 0},
            {"nosync": False, "sync_priority": 0},
            id="nosync false beside a priority",
        ),
        pytest.param({"nosync": False, "failover_priority": 1}, {"failover_priority": 1}, id="not its own"),
    ],
)
def test_tags_are_left_out_as_patroni_does(tags: dict[str, Any], shown: dict[str, Any]) -> None:
    assert shown_tags(tags) == shown
    body = node_json(with_tags(named(LEADS), **tags), START)
    assert body.get("tags", {}) == shown
    assert ("tags" in body) == bool(shown)


TAGS = (("zone", "az2"), ("weight", 10), ("ssd", True), ("nofailover", False))


def of_three() -> Board:
    """n1 is this node, a replica; n2 serves; n3 has not been heard."""
    made = named(FOLLOWS, peers=(Peer("n3"), Peer("n2"), Peer("w", witness=True)))
    made.identity = replace(made.identity, address="10.0.0.1:5432")
    serves = replace(LEADS, followers=(Follower("replicator", "n3", "10.0.0.1", "streaming", "sync", 1),))
    said = says("n2", serves, serving=True)
    made.hear("n2", replace(said, cluster="hp", address="[fd00::2]:5433", tags=TAGS), START)
    return made


def test_the_cluster_lists_every_data_node_by_name() -> None:
    places = {
        "n1": Place("http://10.0.0.1:8008"),
        "n2": Place("http://[fd00::2]:8008", "[fd00::2]:5432"),
        "n3": Place("http://10.0.0.3:8008", "10.0.0.3:5432"),
    }
    unknown = {
        f"{prefix}{kind}": "unknown" for prefix in ("receive_", "replay_", "") for kind in ("lag", "lsn")
    }
    assert cluster_json(of_three(), places, START) == {
        "members": [
            {
                "name": "n1",
                "role": "sync_standby",
                "state": "streaming",
                "timeline": 1,
                "receive_lag": 0,
                "receive_lsn": "0/4000060",
                "replay_lag": 60,
                "replay_lsn": "0/4000024",
                "lag": 0,
                "lsn": "0/4000060",
                "api_url": "http://10.0.0.1:8008/patroni",
                "host": "10.0.0.1",
                "port": 5432,
            },
            {
                "name": "n2",
                "role": "leader",
                "state": "running",
                "timeline": 1,
                "api_url": "http://[fd00::2]:8008/patroni",
                "host": "fd00::2",
                "port": 5433,
                "tags": {
                    "zone": "az2",
                    "weight": 10,
                    "ssd": True,
                },
            },
            {
                "name": "n3",
                "role": "replica",
                "state": "unknown",
                "timeline": 0,
                **unknown,
                "api_url": "http://10.0.0.3:8008/patroni",
                "host": "10.0.0.3",
                "port": 5432,
            },
        ],
        "scope": "hp",
    }


def member(of: Board, name: str, now: float = START) -> dict[str, Any]:
    body: Any = cluster_json(of, {}, now)
    return next(found for found in body["members"] if found["name"] == name)


def test_a_member_that_fell_silent_keeps_its_timeline_and_nothing_else() -> None:
    silent = member(of_three(), "n2", START + 10)
    assert (silent["role"], silent["state"], silent["timeline"], silent["lag"]) == (
        "replica",
        "unknown",
        1,
        "unknown",
    )


def test_a_member_whose_postgresql_is_down_is_stopped() -> None:
    made = of_three()
    said = replace(says("n3", None), cluster="hp", reason="postgres_down")
    made.hear("n3", said, START)
    assert (member(made, "n3")["state"], member(made, "n3")["timeline"]) == ("stopped", 0)


def test_a_member_that_stopped_keeps_its_timeline() -> None:
    made = of_three()
    made.hear("n3", replace(says("n3", replace(FOLLOWS, timeline=4)), cluster="hp"), START)
    made.hear(
        "n3", replace(says("n3", None), cluster="hp", reason="postgres_down", asked_at=START + 1), START + 1
    )
    stopped = member(made, "n3", START + 1)
    assert (stopped["state"], stopped["timeline"]) == ("stopped", 4)


def test_a_discovered_member_has_the_name_that_it_says() -> None:
    made = named(FOLLOWS, peers=(Peer("10.0.0.2:8008", discovered=True),))
    made.policy = replace(made.policy, expected_members=2)
    assert member(made, "10.0.0.2:8008")["state"] == "unknown"
    made.hear("10.0.0.2:8008", replace(says("n2", LEADS, serving=True), cluster="hp"), START)
    found: Any = cluster_json(made, {"10.0.0.2:8008": Place("http://10.0.0.2:8008")}, START)
    assert [(one["name"], one.get("api_url")) for one in found["members"]] == [
        ("n1", None),
        ("n2", "http://10.0.0.2:8008/patroni"),
    ]


def test_only_who_may_be_given_writes_is_the_leader() -> None:
    made = of_three()
    lost = replace(says("n3", replace(LEADS, timeline=1)), cluster="hp", reason="lost_conflict")
    made.hear("n3", lost, START)
    assert (member(made, "n2")["role"], member(made, "n3")["role"]) == ("leader", "primary")
    alone = named(LEADS)
    assert member(alone, "n1")["role"] == "leader"
    alone.maintain(Maintenance(None), START)
    assert member(alone, "n1")["role"] == "primary"


def test_a_witness_is_no_member_of_the_cluster() -> None:
    made = named(None, witness=True, peers=(Peer("n2"),))
    body: Any = cluster_json(made, {}, START)
    assert [found["name"] for found in body["members"]] == ["n2"]


def test_lag_is_never_below_nothing() -> None:
    made = board(replica(), name="n1", peers=(Peer("n2"),))
    made.hear("n2", says("n2", replace(PRIMARY, flush_lsn=WRITTEN - 5), serving=True), START)
    assert member(made, "n1")["lag"] == 0
