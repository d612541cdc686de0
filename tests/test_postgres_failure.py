"""Exceptions of the probe become failures with a reason and a sentence."""

import socket
import ssl

import asyncpg
import pytest

from healthagent.core.model import Failure, Reason
from healthagent.postgres import failure


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
        (OSError(113, "No route to host"), Reason.POSTGRES_STALE, "No route to host"),
        (OSError(24, "Too many open files"), Reason.POSTGRES_STALE, "Too many open files"),
        (PermissionError(13, "Permission denied"), Reason.POSTGRES_STALE, "Permission denied"),
        (socket.gaierror(-2, "Name or service not known"), Reason.POSTGRES_STALE, "does not resolve: Name"),
        (ConnectionResetError(), Reason.POSTGRES_STALE, "hung up"),
        (ConnectionError("rejected SSL upgrade"), Reason.AUTH_FAILED, "has no TLS, or is not PostgreSQL"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), Reason.AUTH_FAILED, "no TLS with PostgreSQL"),
        (asyncpg.ConnectionDoesNotExistError("closed"), Reason.POSTGRES_STALE, "is not PostgreSQL: closed"),
        (asyncpg.InternalClientError("what"), Reason.POSTGRES_STALE, "is not PostgreSQL: what"),
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
