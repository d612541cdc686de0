"""One connection to PostgreSQL under wall budgets.

asyncpg can wait for ever where it cancels or closes: both talk to the server, which may be frozen
(asyncpg#1326, #1356). So nothing here is cancelled or closed: a connection whose time is up is terminated,
which drops the socket at once and ends the waiting call with an error.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from healthagent.core.model import Instant, Snapshot
from healthagent.postgres import statement
from healthagent.postgres.dialling import Connection, connect

Clock = Callable[[], Instant]
ConnectArguments = Mapping[
    str, Any
]  # of asyncpg.connect(), which checks them; we add to them and look at none

# In case the server is the one that hangs: it then ends the statement, and with it our backend, by itself.
SERVER_TIMEOUT_MARGIN = 0.5  # seconds beyond our own budget
SETTINGS = {
    "application_name": "healthagent",
    "search_path": "pg_catalog",  # whatever the role's own search_path may put in front
    "default_transaction_isolation": "read committed",  # a hot standby refuses serializable
}


class Session:
    """An open connection with its prepared statement and what is constant while it lives."""

    def __init__(
        self,
        connection: Connection,
        poll: "PreparedStatement[asyncpg.Record]",
        known: statement.Connected,
    ) -> None:
        self.connection = connection
        self._poll = poll
        self._known = known

    @classmethod
    async def open(cls, arguments: ConnectArguments, timeout: float, deadline: float) -> Self:
        """Connect and prepare before `deadline` (loop time); TimeoutError then, else what asyncpg raises.

        `timeout` is the budget of one probe in seconds, from which the server's own is derived.
        """
        connection = await connect(_complete(arguments, timeout), deadline)
        with _terminated_at(deadline, connection):
            known = await _connected(connection)
            _check_open(connection)
            return cls(connection, await connection.prepare(statement.POLL), known)

    async def ask(self, clock: Clock, deadline: float) -> Snapshot:
        """Take a snapshot before `deadline` (loop time), or raise as open() does and be terminated."""
        with _terminated_at(deadline, self.connection):
            _check_open(self.connection)
            asked_at = clock()
            row = await self._poll.fetchrow()
            assert row is not None, "POLL returns one row by construction"
            snapshot = statement.snapshot(dict(row), self._known, asked_at)
            self._known = self._known.learned(snapshot.timeline)
            return snapshot

    def terminate(self) -> None:
        """Drop the connection now; the server sees an orderly goodbye where the socket takes it at once."""
        self.connection.terminate()


def _complete(arguments: ConnectArguments, timeout: float) -> dict[str, Any]:
    settings = {
        **arguments.get("server_settings", {}),
        **SETTINGS,
        "statement_timeout": str(round((timeout + SERVER_TIMEOUT_MARGIN) * 1000)),
    }
    return {
        **arguments,
        "server_settings": settings,
        "target_session_attrs": "any",  # PGTARGETSESSIONATTRS is not for a probe: it must see either role
        "statement_cache_size": 0,
        "timeout": None,  # our deadlines end everything, and without asyncpg's cancel requests
        "command_timeout": None,
    }


async def _connected(connection: Connection) -> statement.Connected:
    """Ask what is asked once. A role that may not read pg_control polls without a system identifier."""
    try:
        row = await connection.fetchrow(statement.CONNECTED)
    except asyncpg.InsufficientPrivilegeError:
        return statement.Connected(missing=("pg_control",))
    assert row is not None, "CONNECTED returns one row by construction"
    return statement.connected(dict(row))


@contextmanager
def _terminated_at(deadline: float, connection: Connection) -> Iterator[None]:
    """End the connection when the deadline passes (TimeoutError) or the block fails or is cancelled.

    Not asyncio.timeout(): cancelling a running statement makes asyncpg send a cancel request over a second
    connection to the server that does not answer.
    """
    overrun = False

    def end() -> None:
        nonlocal overrun
        overrun = True
        connection.terminate()

    timer = asyncio.get_running_loop().call_at(deadline, end)
    try:
        yield
    except BaseException as error:
        connection.terminate()
        if overrun and not isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()


def _check_open(connection: Connection) -> None:
    """Asyncpg takes a connection that was dropped between two calls for a bug of ours."""
    if connection.is_closed():
        raise asyncpg.ConnectionDoesNotExistError("the connection was closed")
