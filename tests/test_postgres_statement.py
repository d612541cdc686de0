"""Rows of the probe's statements become snapshots."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import pytest

from healthagent.core.model import Follower, Receiver, Role
from healthagent.postgres.statement import Connected, application_name, connected, snapshot

KNOWN = Connected(system_identifier=7710761632904163655, timeline=3)
STARTED = datetime(2026, 11, 21, 20, 6, 33, 798321, tzinfo=UTC)


def primary_row(**columns: object) -> dict[str, object]:
    row: dict[str, object] = {
        "in_recovery": False,
        "wal_file": "000000030000000000000004",
        "insert_lsn": 2000,
        "flush_lsn": 1000,
        "received_lsn": None,
        "replayed_lsn": None,
        "replayed_at": None,
        "replay_age": None,
        "replay_paused": None,
        "restores_from_archive": False,
        "read_only": False,
        "server_version": 150018,
        "postmaster_started_at": STARTED,
        "receiver_pid": None,
        "receiver_status": None,
        "sender_host": None,
        "sender_port": None,
        "conninfo": None,
        "received_tli": None,
        "latest_end_lsn": None,
        "followers": None,
    }
    return row | columns


def replica_row(**columns: object) -> dict[str, object]:
    row: dict[str, object] = {
        "in_recovery": True,
        "wal_file": None,
        "insert_lsn": None,
        "flush_lsn": None,
        "received_lsn": 900,
        "replayed_lsn": 800,
        "replay_paused": False,
    }
    return primary_row(**row) | columns


STREAMING: dict[str, object] = {
    "receiver_pid": 4711,
    "receiver_status": "streaming",
    "sender_host": "10.0.0.11",
    "sender_port": 5432,
    "conninfo": "user=repl application_name=pg2 fallback_application_name=walreceiver",
    "received_tli": 4,
    "latest_end_lsn": 950,
}


def test_a_primary_has_role_lsns_and_identity() -> None:
    found = snapshot(primary_row(), KNOWN, asked_at=12.5)
    assert (found.asked_at, found.role, found.system_identifier) == (12.5, Role.PRIMARY, 7710761632904163655)
    assert (found.insert_lsn, found.flush_lsn, found.server_version) == (2000, 1000, 150018)
    assert found.postmaster_started_at == "2026-11-21 20:06:33.798321+00:00"
    assert (found.receiver, found.followers, found.missing) == (None, (), ())


@pytest.mark.parametrize(
    ("wal_file", "timeline"),
    [
        pytest.param("000000010000000000000001", 1, id="1"),
        pytest.param("000000090000000000000001", 9, id="9, the last that looks decimal"),
        pytest.param("0000000A0000000000000001", 10, id="10 is written 0A"),
        pytest.param("0000000F0000000000000001", 15, id="15 is written 0F"),
        pytest.param("000000100000000000000001", 16, id="16 is written 10"),
        pytest.param("FFFFFFFF0000000000000001", 0xFFFFFFFF, id="beyond a signed 32 bit number"),
    ],
)
def test_a_primarys_timeline_is_hexadecimal(wal_file: str, timeline: int) -> None:
    assert snapshot(primary_row(wal_file=wal_file), KNOWN, 0).timeline == timeline


@pytest.mark.parametrize(
    ("known", "columns", "timeline"),
    [
        pytest.param(3, {}, 3, id="no receiver: what pg_control said"),
        pytest.param(3, STREAMING, 4, id="a receiver that has heard from its sender knows better"),
        pytest.param(3, STREAMING | {"latest_end_lsn": None}, 3, id="one that has not is not believed"),
        pytest.param(5, STREAMING, 5, id="an older receiver does not take a newer fact back"),
        pytest.param(None, {}, None, id="nothing known"),
        pytest.param(None, STREAMING, 4, id="only the receiver known"),
    ],
)
def test_a_replicas_timeline(known: int | None, columns: Mapping[str, object], timeline: int | None) -> None:
    assert snapshot(replica_row(**columns), Connected(timeline=known), 0).timeline == timeline


@pytest.mark.parametrize(
    ("timeline", "after"),
    [
        pytest.param(None, 3, id="nothing new"),
        pytest.param(2, 3, id="older"),
        pytest.param(4, 4, id="newer"),
    ],
)
def test_a_connection_remembers_the_highest_timeline(timeline: int | None, after: int) -> None:
    assert KNOWN.learned(timeline).timeline == after


def test_a_streaming_replica_has_its_receiver() -> None:
    found = snapshot(replica_row(**STREAMING), KNOWN, 0)
    assert found.receiver == Receiver("streaming", "10.0.0.11", 5432, 4, 950, "pg2")
    assert (found.received_lsn, found.replayed_lsn, found.missing) == (900, 800, ())
    assert found.replication_state == "streaming"


def test_a_receiver_that_may_not_be_looked_at_is_unknown_and_not_down() -> None:
    found = snapshot(replica_row(receiver_pid=4711), KNOWN, 0)
    assert found.receiver == Receiver("unknown")
    assert found.missing == ("pg_stat_wal_receiver",)


def test_followers_keep_patronis_columns() -> None:
    row = {
        "usename": "repl",
        "application_name": "pg2",
        "client_addr": "10.0.0.12",
        "state": "streaming",
        "sync_state": "sync",
        "sync_priority": 1,
    }
    found = snapshot(primary_row(followers=msgspec.json.encode([row]).decode()), KNOWN, 0)
    assert found.followers == (Follower("repl", "pg2", "10.0.0.12", "streaming", "sync", 1),)
    assert found.missing == ()


def test_followers_that_may_not_be_looked_at_are_missing() -> None:
    row = dict.fromkeys(
        ("usename", "application_name", "client_addr", "state", "sync_state", "sync_priority")
    )
    found = snapshot(primary_row(followers=msgspec.json.encode([row]).decode()), KNOWN, 0)
    assert [follower.state for follower in found.followers] == [None]
    assert found.missing == ("pg_stat_replication",)


def test_what_was_missing_on_connecting_stays_named() -> None:
    assert snapshot(primary_row(), Connected(missing=("pg_control",)), 0).missing == ("pg_control",)


@pytest.mark.parametrize(
    ("source", "read_only"),
    [
        pytest.param("configuration file", True, id="postgresql.conf holds for everybody"),
        pytest.param("database", True, id="ALTER DATABASE holds for everybody there"),
        pytest.param("command line", True, id="postgres -c"),
        pytest.param("user", False, id="ALTER ROLE healthagent says nothing of other sessions"),
        pytest.param("database user", False, id="ALTER ROLE IN DATABASE neither"),
        pytest.param("client", False, id="nor options in postgres.dsn"),
    ],
)
def test_read_only_is_what_other_sessions_get(source: str, read_only: bool) -> None:
    known = connected({"system_identifier": 1, "timeline": 1, "read_only_source": source})
    assert snapshot(primary_row(read_only=True), known, 0).read_only is read_only


def test_replay_is_described_in_patronis_spelling() -> None:
    row = replica_row(replayed_at=STARTED, replay_age=2.5, replay_paused=True, restores_from_archive=True)
    found = snapshot(row, KNOWN, 0)
    assert found.replayed_timestamp == "2026-11-21 20:06:33.798321+00:00"
    assert (found.replay_age_seconds, found.replay_paused) == (2.5, True)
    assert found.replication_state == "in archive recovery"


@pytest.mark.parametrize(
    ("conninfo", "name"),
    [
        pytest.param("user=repl application_name=pg2 host=10.0.0.1", "pg2", id="application_name"),
        pytest.param("application_name=pg2 fallback_application_name=main", "pg2", id="before the fallback"),
        pytest.param("user=repl fallback_application_name=main port=1", "main", id="cluster_name"),
        pytest.param("application_name=two words port=1", "two words", id="values are not quoted"),
        pytest.param("user=repl", None, id="neither"),
        pytest.param("", None, id="not shown"),
    ],
)
def test_the_name_a_receiver_gives(conninfo: str, name: str | None) -> None:
    assert application_name(conninfo) == name
