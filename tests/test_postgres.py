"""Rows become snapshots, exceptions become failures; what listens and is not PostgreSQL is said to be so."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import asyncpg
import msgspec
import pytest

from healthagent.core.model import Failure, Follower, Reason, Receiver, Role
from healthagent.postgres import failure
from healthagent.postgres.session import Session
from healthagent.postgres.statement import Connected, application_name, connected, snapshot

# For "localhost", self-signed until 2126; it guards nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggC9mKgK6bqkagSG2
zwxUu60/7hZdsQLQ0F92hLZ7Q7mhRANCAAQPHQGAxN6Zyhu2+kLAoIsewyYp90Ft
rJUAIb+8SYg0M+/umUEmRzt78di8npUepjEVhGbhpo4hEygy9W/hEHBf
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBfjCCASWgAwIBAgIUZFHM+h/B+p1+JEDVRAaYvGGWkYEwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTIzMTcwNloYDzIxMjYxMDI4
MjMxNzA2WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQPHQGAxN6Zyhu2+kLAoIsewyYp90FtrJUAIb+8SYg0M+/umUEmRzt7
8di8npUepjEVhGbhpo4hEygy9W/hEHBfo1MwUTAdBgNVHQ4EFgQUBczsrs0JOOK7
gdP+ktMhNzFF+h8wHwYDVR0jBBgwFoAUBczsrs0JOOK7gdP+ktMhNzFF+h8wDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiB2+rvHOv2rASaWvTHslmmH
r9Lat9Jgexzqb7/D0EcOYgIgdTpsMrMKp5Ptw8dlgJ6N+CnK6wanizglDt+iOUge
kzs=
-----END CERTIFICATE-----
"""
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


def server_error(
    kind: type[asyncpg.PostgresError], message: str, severity: str = "FATAL"
) -> asyncpg.PostgresError:
    error = kind(message)
    error.severity = severity
    return error


NOT_NOW = asyncpg.CannotConnectNowError


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), Reason.POSTGRES_DOWN, "nothing listens"),
        (FileNotFoundError(2, "No such file"), Reason.POSTGRES_DOWN, "no such Unix socket"),
        (OSError(113, "No route to host"), Reason.POSTGRES_DOWN, "No route to host"),
        (socket.gaierror(-2, "Name or service not known"), Reason.POSTGRES_DOWN, "does not resolve: Name"),
        (ConnectionResetError(), Reason.POSTGRES_DOWN, "hung up"),
        (ConnectionError("rejected SSL upgrade"), Reason.POSTGRES_DOWN, "has no TLS, or is not PostgreSQL"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), Reason.POSTGRES_DOWN, "no TLS with PostgreSQL"),
        (asyncpg.ConnectionDoesNotExistError("closed"), Reason.POSTGRES_DOWN, "is not PostgreSQL: closed"),
        (asyncpg.InternalClientError("what"), Reason.POSTGRES_DOWN, "is not PostgreSQL: what"),
        (
            NOT_NOW("the database system is shutting down"),
            Reason.POSTGRES_DOWN,
            "PostgreSQL is shutting down",
        ),
        (server_error(asyncpg.AdminShutdownError, "ended"), Reason.POSTGRES_DOWN, "is shutting down: ended"),
        (server_error(asyncpg.CrashShutdownError, "ended"), Reason.POSTGRES_DOWN, "is shutting down: ended"),
        (NOT_NOW("the database system is starting up"), Reason.POSTGRES_STARTING, "is starting up"),
        (NOT_NOW("the database system is in recovery mode"), Reason.POSTGRES_STARTING, "crash recovery"),
        (
            NOT_NOW("the database system is not yet accepting connections"),
            Reason.POSTGRES_STARTING,
            "not yet consistent",
        ),
        (
            NOT_NOW("the database system is not accepting connections"),
            Reason.POSTGRES_STARTING,
            "hot_standby off",
        ),
        (NOT_NOW("das Datenbanksystem startet"), Reason.POSTGRES_STARTING, "not ready: das Datenbanksystem"),
        (
            server_error(asyncpg.TooManyConnectionsError, "sorry"),
            Reason.NO_CONNECTION_SLOT,
            "slot left: sorry",
        ),
        (server_error(asyncpg.InvalidPasswordError, "no"), Reason.AUTH_FAILED, "login: no"),
        (
            server_error(asyncpg.InvalidAuthorizationSpecificationError, "no pg_hba.conf entry"),
            Reason.AUTH_FAILED,
            "no pg_hba.conf entry",
        ),
        (
            server_error(asyncpg.InvalidCatalogNameError, 'database "x" does not exist'),
            Reason.AUTH_FAILED,
            'postgres.dsn cannot be used: database "x" does not exist',
        ),
        (asyncpg.InterfaceError("no settings"), Reason.AUTH_FAILED, "no session at PostgreSQL: no settings"),
        (
            server_error(asyncpg.InsufficientPrivilegeError, "permission denied", "ERROR"),
            Reason.PRIVILEGE_MISSING,
            "healthagent sql",
        ),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else None,
)
def test_a_failure_that_is_an_answer_is_conclusive(error: Exception, reason: Reason, words: str) -> None:
    found = failure.failure(error, at=7.0, timeout=1.0)
    assert (found.reason, found.at, found.conclusive) == (reason, 7.0, True)
    assert words in found.detail


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        pytest.param(TimeoutError(), "PostgreSQL did not answer within 1.5 s", id="budget"),
        pytest.param(TimeoutError(110, "timed out"), "PostgreSQL did not answer within 1.5 s", id="kernel"),
        pytest.param(
            server_error(asyncpg.QueryCanceledError, "canceled", "ERROR"),
            "PostgreSQL answered with error 57014: canceled",
            id="statement_timeout",
        ),
        pytest.param(
            server_error(asyncpg.ObjectNotInPrerequisiteStateError, "recovery is not in progress", "ERROR"),
            "PostgreSQL answered with error 55000: recovery is not in progress",
            id="a promotion inside the statement",
        ),
    ],
)
def test_silence_is_not_conclusive(error: Exception, detail: str) -> None:
    expected = Failure(Reason.POSTGRES_STALE, detail, 7.0, conclusive=False)
    assert failure.failure(error, at=7.0, timeout=1.5) == expected


def test_only_the_first_line_of_an_error_is_repeated() -> None:
    error = server_error(asyncpg.InvalidPasswordError, "no\nDETAIL:  tried secret")
    assert "secret" not in failure.failure(error, 0, 1).detail


async def refused(arguments: dict[str, object], budget: float = 5.0) -> Failure:
    """Open a session that must fail, and say how."""
    deadline = asyncio.get_running_loop().time() + budget
    with pytest.raises(failure.EXPECTED) as caught:
        await Session.open(arguments, budget, deadline)
    return failure.failure(caught.value, 0, budget)


@pytest.mark.parametrize("tls", ["disable", "prefer", "require"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", id="HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="SSH"),
        pytest.param(b"J\0\0\0\n8.0.36\0", id="MySQL"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_another_server_on_the_port_is_named_as_such(answer: bytes, tls: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        found = await refused({"host": host, "port": port, "user": "u", "database": "d", "ssl": tls})
    assert (found.reason, found.conclusive) == (Reason.POSTGRES_DOWN, True)
    assert "is not PostgreSQL" in found.detail


@pytest.mark.parametrize("answer", [b"", b"S", b"N"], ids=["mute", "TLS then mute", "no TLS then mute"])
async def test_a_server_that_never_answers_costs_the_budget(answer: bytes) -> None:
    left = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        while await reader.read(1000):
            pass
        writer.close()
        left.set()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        found = await refused({"host": host, "port": port, "user": "u", "database": "d"}, budget=0.1)
        await asyncio.wait_for(left.wait(), 1)  # it saw us hang up
    assert (found.reason, found.conclusive) == (Reason.POSTGRES_STALE, False)


async def test_a_server_that_goes_mute_after_tls_is_left_at_once(tmp_path: Path) -> None:
    """A polite TLS close would wait 30 s for its answer, in one of its connection slots."""
    certificate = tmp_path / "both.pem"
    certificate.write_text(CERTIFICATE)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    left = asyncio.Event()

    class Mute(asyncio.Protocol):
        """Agrees to TLS by hand, so that nothing here answers a close_notify."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = tls.wrap_bio(self.incoming, self.outgoing, server_side=True)
            self.asked = False

        def data_received(self, data: bytes) -> None:
            if not self.asked:
                self.asked = True
                self.transport.write(b"S")
                return
            self.incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            self.transport.write(self.outgoing.read())

        def connection_lost(self, exc: Exception | None) -> None:
            left.set()

    async with await asyncio.get_running_loop().create_server(Mute, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        arguments = {"host": host, "port": port, "user": "u", "database": "d", "ssl": "require"}
        found = await refused(arguments, budget=0.2)
        await asyncio.wait_for(left.wait(), 1)
    assert (found.reason, found.conclusive) == (Reason.POSTGRES_STALE, False)


async def test_settings_that_cannot_be_used_are_not_quoted() -> None:
    found = await refused({"dsn": "postgresql://u:se/cret@localhost/d"})
    assert (found.reason, found.detail) == (
        Reason.AUTH_FAILED,
        "no session at PostgreSQL: the connection settings cannot be used",
    )
