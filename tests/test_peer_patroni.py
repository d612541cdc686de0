"""A plain Patroni node's /patroni in our words; bodies as Patroni 4.1.5 sent them."""

import json
from typing import Any

import pytest

from healthagent.core.model import Role
from healthagent.core.peer import Source
from healthagent.peers.patroni import statement_from
from healthagent.wire import Misunderstood

SYSTEM = "7710718678868212726"
PATRONI = {"version": "4.1.5", "scope": "hp", "name": "n1"}
PRIMARY: dict[str, Any] = {
    "state": "running",
    "postmaster_start_time": "2026-11-21 20:06:33.798321+00:00",
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
    "dcs_last_seen": 1795291643,
    "tags": {"zone": "az1", "weight": 10, "ssd": True},
    "database_system_identifier": SYSTEM,
    "patroni": PATRONI,
}
REPLICA: dict[str, Any] = {
    **{key: value for key, value in PRIMARY.items() if key not in ("xlog", "replication")},
    "role": "replica",
    "xlog": {
        "received_location": 67108960,
        "replayed_location": 67108900,
        "replayed_timestamp": None,
        "paused": False,
    },
    "replication_state": "streaming",
}
STARTING = {
    "state": "starting",
    "role": "replica",
    "dcs_last_seen": 1795292287,
    "tags": {},
    "database_system_identifier": SYSTEM,
    "patroni": PATRONI,
}
STOPPED = {"state": "stopped", "role": "primary", "pause": True, "cluster_unlocked": True, "patroni": PATRONI}
NEW = {**REPLICA, "state": "creating replica", "role": "uninitialized"}


def read(body: dict[str, Any]):  # type: ignore[no-untyped-def]  # a Statement
    return statement_from(json.dumps(body).encode(), "pg2", 10.0, 10.5)


@pytest.mark.parametrize(
    ("body", "role", "serving"),
    [
        pytest.param(PRIMARY, Role.PRIMARY, True, id="primary"),
        pytest.param({**PRIMARY, "role": "master"}, Role.PRIMARY, True, id="primary, before Patroni 4"),
        pytest.param({**PRIMARY, "role": "promoted"}, Role.PRIMARY, True, id="just promoted"),
        pytest.param(REPLICA, Role.REPLICA, False, id="replica"),
        pytest.param({**REPLICA, "role": "standby_leader"}, Role.REPLICA, False, id="standby leader"),
        pytest.param({**REPLICA, "role": "demoted"}, Role.REPLICA, False, id="demoted"),
        pytest.param(STARTING, None, False, id="starting"),
        pytest.param(STOPPED, None, False, id="stopped in pause"),
        pytest.param({**PRIMARY, "state": "unknown"}, None, False, id="its own query failed"),
        pytest.param({**PRIMARY, "state": "crashed"}, None, False, id="crashed"),
        pytest.param(NEW, None, False, id="being created"),
    ],
)  # fmt: skip
def test_role_and_service(body: dict[str, Any], role: Role | None, serving: bool) -> None:
    found = read(body)
    assert (found.role, found.serving, found.source) == (role, serving, Source.PATRONI)
    assert found.yields_to is None
    assert found.detail == f"Patroni says {body['role']}, {body['state']}"


def test_what_is_read_of_a_primary() -> None:
    found = read(PRIMARY)
    assert (found.name, found.cluster, found.version) == ("pg2", "hp", "4.1.5")
    assert (found.asked_at, found.received_at) == (10.0, 10.5)
    assert found.snapshot.asked_at == 10.0
    assert (found.timeline, found.snapshot.system_identifier) == (1, int(SYSTEM))
    assert (found.snapshot.flush_lsn, found.snapshot.received_lsn) == (67108960, None)


def test_what_is_read_of_a_replica() -> None:
    snapshot = read(REPLICA).snapshot
    assert (snapshot.received_lsn, snapshot.replayed_lsn, snapshot.flush_lsn) == (67108960, 67108900, None)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"[" * 100_000, id="deep JSON"),
        pytest.param(b"\xff\xfe{}", id="no UTF-8"),
        pytest.param(b'{"state":"running","role":"primary"}', id="somebody else's JSON"),
        *(
            pytest.param(json.dumps({**PRIMARY, **wrong}).encode(), id=f"{wrong}")
            for wrong in (
                {"timeline": 0},
                {"timeline": -1},
                {"timeline": 2**32},
                {"timeline": "1"},
                {"database_system_identifier": 7710718678868212726},
                {"database_system_identifier": "x"},
                {"xlog": {"location": -1}},
                {"xlog": {"location": 1e300}},
                {"state": None},
                {"role": ["primary"]},
                {"patroni": "4.1.5"},
            )
        ),
    ],
)
def test_what_is_no_patroni_node(body: bytes) -> None:
    with pytest.raises(Misunderstood, match="neither an agent nor a Patroni node"):
        statement_from(body, "pg2", 10.0, 10.5)


def test_an_agent_that_refuses_our_questions_is_no_patroni_node() -> None:
    with pytest.raises(Misunderstood, match="does not take our questions"):
        read({**PRIMARY, "healthagent": {"version": "0.1"}})
