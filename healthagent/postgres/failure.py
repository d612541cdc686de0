"""What a failed probe says: an exception of asyncpg becomes a reason and a sentence without secrets.

SQLSTATEs are those of PostgreSQL's appendix A; the texts behind 57P03 those of its ProcessStartupPacket(),
which tells its cases apart by nothing else. Translated by lc_messages they are not recognised, but quoted.
"""

import socket
import ssl

import asyncpg

from healthagent.core.model import Failure, Instant, Reason

# What asyncpg raises when a server, a network or a setting is at fault. Anything else is a bug and may crash.
EXPECTED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

SHUTTING_DOWN = "the database system is shutting down"
_STARTING = {
    "the database system is starting up": "is starting up",
    "the database system is in recovery mode": "is in crash recovery",
    "the database system is not yet accepting connections": "replays WAL and is not yet consistent",
    "the database system is not accepting connections": (
        "has hot_standby off: such a standby accepts no sessions, so it serves nobody and cannot be checked"
    ),
}
FATAL = "FATAL"
_LOST = "08003", "08006"  # asyncpg's own: connection does not exist, connection failure


def failure(error: BaseException, at: Instant, timeout: float) -> Failure:
    """Say why PostgreSQL could not be asked; `timeout` is the probe's wall budget in seconds."""
    if isinstance(error, TimeoutError):
        # Not conclusive: it may only be slow, and what it said last may still be true.
        return Failure(
            Reason.POSTGRES_STALE, f"PostgreSQL did not answer within {timeout:g} s", at, conclusive=False
        )
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate not in _LOST:
        return _refusal(error, at)
    if isinstance(error, ConnectionRefusedError):
        return Failure(Reason.POSTGRES_DOWN, "PostgreSQL is down: nothing listens at its address", at)
    if isinstance(error, FileNotFoundError):
        return Failure(Reason.POSTGRES_DOWN, "PostgreSQL is down: no such Unix socket", at)
    if isinstance(error, ssl.SSLError):
        return Failure(Reason.AUTH_FAILED, _no_tls(error), at)
    if isinstance(error, OSError):
        return _unreached(error, at)
    if isinstance(error, asyncpg.InterfaceError):
        return Failure(Reason.AUTH_FAILED, f"no session at PostgreSQL: {_first_line(error)}", at)
    return Failure(
        Reason.POSTGRES_STALE,
        f"the connection broke, or what listens there is not PostgreSQL: {_first_line(error)}",
        at,
    )


def is_shutting_down(error: BaseException) -> bool:
    """Say whether a new session was refused because the server shuts down."""
    return isinstance(error, asyncpg.CannotConnectNowError) and _first_line(error) == SHUTTING_DOWN


def _refusal(error: asyncpg.PostgresError, at: Instant) -> Failure:
    """PostgreSQL itself said no: by SQLSTATE, then by class of SQLSTATE."""
    said = _first_line(error)
    match error.sqlstate or "":
        case "57P01" | "57P02":
            return Failure(Reason.POSTGRES_DOWN, f"PostgreSQL is shutting down: {said}", at)
        case "57P03" if is_shutting_down(error):
            return Failure(Reason.POSTGRES_DOWN, "PostgreSQL is shutting down", at)
        case "57P03":
            return Failure(
                Reason.POSTGRES_STARTING, f"PostgreSQL {_STARTING.get(said, f'is not ready: {said}')}", at
            )
        case "53300":
            return Failure(Reason.NO_CONNECTION_SLOT, f"PostgreSQL has no connection slot left: {said}", at)
        case "42501":
            return Failure(
                Reason.PRIVILEGE_MISSING,
                f"this agent's role lacks a privilege (healthagent sql prints them): {said}",
                at,
            )
        case "3D000" | "55000" if error.severity == FATAL:
            return Failure(Reason.AUTH_FAILED, f"the database of postgres.dsn cannot be used: {said}", at)
        case state if state.startswith("28"):
            return Failure(Reason.AUTH_FAILED, f"PostgreSQL refuses this agent's login: {said}", at)
        case state:
            # It lives but cannot say more, as when out of memory: what it said last may still be true.
            return Failure(
                Reason.POSTGRES_STALE,
                f"PostgreSQL answered with error {state}: {said}",
                at,
                conclusive=False,
            )


def _no_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of PostgreSQL is not accepted: {error.verify_message}"
    return f"no TLS with PostgreSQL: {_first_line(error)}"


def _unreached(error: OSError, at: Instant) -> Failure:
    """No answer came, for a cause that may be ours or the network's: nothing is known of PostgreSQL."""
    match error:
        case ConnectionResetError():
            return Failure(Reason.POSTGRES_STALE, "PostgreSQL hung up before it had answered", at)
        case ConnectionError():  # asyncpg's own, while it negotiates TLS
            said = (
                f"what listens at PostgreSQL's address has no TLS, or is not PostgreSQL: {_first_line(error)}"
            )
            return Failure(Reason.AUTH_FAILED, said, at)
        case socket.gaierror():
            said = f"the host name of PostgreSQL does not resolve: {error.strerror}"
        case _:
            said = f"PostgreSQL is not reached: {_first_line(error)}"
    return Failure(Reason.POSTGRES_STALE, said, at)


def _first_line(error: BaseException) -> str:
    """The error's own words, less the DETAIL and HINT lines, which may quote what we sent."""
    return str(error).partition("\n")[0] or type(error).__name__
