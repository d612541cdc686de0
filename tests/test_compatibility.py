"""Other exporters' metric names: what they say of each kind of node, and that they are off by default."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text

from healthagent.board import Board
from healthagent.compatibility import PATRONI, POSTGRES_EXPORTER, Compatibility
from healthagent.config import Settings
from healthagent.config.gather import TABLE
from healthagent.core.model import Failure, Follower, Reason
from healthagent.core.peer import Peer
from healthagent.core.view import Maintenance
from healthagent.metrics import Metrics, Sources
from tests.bed.boards import PRIMARY, START, WRITTEN, Clock, board, replica, says

STARTED = "2026-11-21 12:00:00.5+00:00"
REPLAYED = "2026-11-21 13:00:00+02:00"


def scraped(made: Board, *wanted: str, now: float = START) -> dict[str, float]:
    """Values by name of the families that `wanted` adds."""
    body = render(made, wanted, now)
    return {
        sample.name: sample.value
        for family in read_text(body)
        for sample in family.samples
        if not sample.name.startswith("healthagent_")
    }


def render(made: Board, wanted: Collection[str], now: float = START) -> str:
    more = [Compatibility(made, Clock(now), lambda: wanted)]
    return Metrics(made, Clock(now), Sources(), more).render(None)[0].decode()


def down() -> Board:
    made = board(PRIMARY)
    made.observe_failure(Failure(Reason.POSTGRES_DOWN, "nothing listens", START), START)
    return made


def from_archive() -> Board:
    return board(replace(replica(), receiver=None, restores_from_archive=True, replay_paused=True))


def with_serving_peer() -> Board:
    made = board(replica(), peers=(Peer("pg2"),))
    made.hear("pg2", says("pg2", PRIMARY, serving=True), START)
    return made


def attached(sync_state: str) -> Board:
    """A replica whose primary says what kind of standby it is."""
    row = Follower("me", "pg2", "10.0.0.2", "streaming", sync_state, 1)
    made = board(replica(), name="pg2", peers=(Peer("pg1"),))
    made.hear("pg1", says("pg1", replace(PRIMARY, followers=(row,)), serving=True), START)
    return made


def test_nothing_is_added_unless_it_is_asked_for() -> None:
    assert Settings().metrics.compatibility is None
    assert scraped(board(PRIMARY)) == {}
    assert TABLE["metrics.compatibility"].key.live


@pytest.mark.parametrize(
    ("made", "now", "expected"),
    [
        pytest.param(board(PRIMARY), START, {"is_replica": 0, "lag": 0, "lag_seconds": 0}, id="a primary"),
        pytest.param(
            board(replica(late=3.0)),
            START + 1,
            {"is_replica": 1, "lag": 4, "lag_seconds": 4},
            id="a replica, the age of its last commit also when nothing came since",
        ),
        pytest.param(board(replica()), START, {"is_replica": 1}, id="a replica that replayed no commit yet"),
        pytest.param(
            board(replica(late=-5.0)), START, {"is_replica": 1, "lag": 0, "lag_seconds": 0}, id="ahead"
        ),
        pytest.param(board(PRIMARY), START + 2.1, {}, id="a primary whose evidence is old"),
        pytest.param(down(), START, {}, id="PostgreSQL is down"),
        pytest.param(board(None, witness=True), START, {}, id="a witness"),
    ],
)
def test_postgres_exporter(made: Board, now: float, expected: dict[str, float]) -> None:
    assert scraped(made, POSTGRES_EXPORTER, now=now) == {
        f"pg_replication_{name}": value for name, value in expected.items()
    }


PATRONI_NAMES = {
    "version",
    "postgres_running",
    "postgres_state",
    "postmaster_start_time",
    "primary",
    "standby_leader",
    "replica",
    "sync_standby",
    "quorum_standby",
    "xlog_location",
    "xlog_received_location",
    "xlog_replayed_location",
    "xlog_replayed_timestamp",
    "xlog_paused",
    "postgres_streaming",
    "postgres_in_archive_recovery",
    "postgres_server_version",
    "cluster_unlocked",
    "failsafe_mode_is_active",
    "postgres_timeline",
    "is_paused",
}
NEVER = {"dcs_last_seen", "pending_restart"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(
            board(replace(PRIMARY, postmaster_started_at=STARTED)),
            {
                "version": 40105,
                "primary": 1,
                "replica": 0,
                "standby_leader": 0,
                "postgres_running": 1,
                "postgres_state": 5,
                "postmaster_start_time": datetime.fromisoformat(STARTED).timestamp(),
                "xlog_location": WRITTEN,
                "xlog_replayed_location": 0,
                "postgres_timeline": 3,
                "postgres_server_version": 150018,
                "postgres_streaming": 0,
                "cluster_unlocked": 0,
            },
            id="a primary",
        ),
        pytest.param(
            board(replace(replica(behind=96), replayed_timestamp=REPLAYED)),
            {
                "primary": 0,
                "replica": 1,
                "xlog_location": 0,
                "xlog_received_location": WRITTEN,
                "xlog_replayed_location": WRITTEN - 96,
                "xlog_replayed_timestamp": datetime.fromisoformat(REPLAYED).timestamp(),
                "xlog_paused": 0,
                "postgres_streaming": 1,
                "postgres_in_archive_recovery": 0,
                "is_paused": 0,
            },
            id="a replica",
        ),
        pytest.param(
            from_archive(),
            {"postgres_streaming": 0, "postgres_in_archive_recovery": 1, "xlog_paused": 1},
            id="a replica that replays from an archive, and pauses",
        ),
        pytest.param(attached("sync"), {"sync_standby": 1, "quorum_standby": 0}, id="a synchronous replica"),
        pytest.param(attached("quorum"), {"sync_standby": 0, "quorum_standby": 1}, id="a quorum replica"),
        pytest.param(attached("async"), {"sync_standby": 0, "quorum_standby": 0}, id="an asynchronous one"),
        pytest.param(with_serving_peer(), {"cluster_unlocked": 0}, id="a replica of a primary that serves"),
        pytest.param(
            down(),
            {
                "primary": 0,
                "replica": 0,
                "postgres_running": 0,
                "postgres_state": 12,
                "postgres_timeline": 0,
                "postgres_server_version": 0,
                "cluster_unlocked": 1,
            },
            id="a primary that was stopped is no primary",
        ),
        pytest.param(board(None), {"postgres_state": -1, "postgres_running": 0}, id="nothing is known yet"),
    ],
)
def test_patroni(made: Board, expected: dict[str, float]) -> None:
    found = {name.removeprefix("patroni_"): value for name, value in scraped(made, PATRONI).items()}
    assert {name: found[name] for name in expected} == expected
    unknown = {"postgres_streaming", "postgres_in_archive_recovery"} if made.role(START) is None else set()
    assert found.keys() == PATRONI_NAMES - unknown


def test_patroni_names_what_it_never_has() -> None:
    types = {line.split()[2] for line in render(board(PRIMARY), [PATRONI]).splitlines() if "# TYPE p" in line}
    assert types == {f"patroni_{name}" for name in PATRONI_NAMES | NEVER}


def test_a_witness_is_no_node_of_patroni() -> None:
    assert scraped(board(None, witness=True), PATRONI) == {}


def test_maintenance_is_a_pause() -> None:
    made = board(PRIMARY)
    made.maintain(Maintenance(until=None), START)
    assert scraped(made, PATRONI)["patroni_is_paused"] == 1


@pytest.mark.parametrize(
    ("wanted", "name", "labels"),
    [
        (PATRONI, "patroni_primary", {"scope": "main", "name": "pg1"}),
        (POSTGRES_EXPORTER, "pg_replication_is_replica", {"cluster": "main", "name": "pg1"}),
    ],
)
def test_whose_labels_they_carry(wanted: str, name: str, labels: dict[str, str]) -> None:
    families = {family.name: family for family in read_text(render(board(PRIMARY), [wanted]))}
    assert [sample.labels for sample in families[name].samples] == [labels]
