"""A client that writes all the time, and remembers exactly what it was promised by whom.

    async with Writer(port) as writer:          # through HAProxy's write port
        ...                                     # break things
    assert writer.commits
    assert superseded(writer.commits) == []
    assert overlaps(writer.commits) == []

Some sessions are held and some are opened anew for each write: a proxy treats them differently. The
server itself says who it is, so that what is recorded is where a write went and not where it should have.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count, pairwise
from types import TracebackType
from typing import Self

import asyncpg

TABLE = """
CREATE TABLE IF NOT EXISTS written (
    session text NOT NULL,
    number bigint NOT NULL,
    node text NOT NULL DEFAULT current_setting('cluster_name'),
    timeline text NOT NULL DEFAULT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
)
"""
INSERT = """
INSERT INTO written (session, number) VALUES ($1, $2)
RETURNING node, timeline, pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS lsn
"""
READ_ONLY = "25006"  # read_only_sql_transaction: the write reached a replica

PAUSE = 0.01  # seconds between two writes of a session: enough to see 20 ms, and little load
PATIENCE = 2.0  # seconds for one connect, and for one statement

# The last one is how asyncpg says that the server spoke out of turn: it was shutting down.
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

Instant = float  # CLOCK_BOOTTIME seconds


@dataclass(frozen=True)
class Commit:
    """A write that was acknowledged: it became durable between `asked_at` and `done_at`."""

    node: str
    timeline: int
    lsn: int
    asked_at: Instant
    done_at: Instant
    session: str
    number: int


@dataclass(frozen=True)
class Failure:
    """A connect or a write that failed; a write may have been committed all the same."""

    asked_at: Instant
    failed_at: Instant
    session: str
    number: int
    connecting: bool
    error: str  # the SQLSTATE where the server sent one, else the name of the exception
    detail: str


@dataclass(frozen=True)
class Term:
    """The acknowledged writes of one node on one timeline."""

    node: str
    timeline: int
    first: Commit
    last: Commit


@dataclass(frozen=True)
class Handover:
    """From the last write on one node to the first on the next; an overlap is a negative outage."""

    old: Term
    new: Term

    @property
    def outage(self) -> float:
        """Seconds without an acknowledged write; negative when both nodes took writes."""
        return self.new.first.done_at - self.old.last.done_at


class Writer:
    """Writes through one TCP port until it is left. Commits and failures stand in the order they ended."""

    def __init__(
        self, port: int, *, held: int = 3, fresh: int = 1, host: str = "127.0.0.1", user: str = "postgres"
    ) -> None:
        self.port = port
        self.host = host
        self.user = user
        self.commits: list[Commit] = []
        self.failures: list[Failure] = []
        self._held = held
        self._fresh = fresh
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for index in range(self._held):
            self._running.append(self._tasks.create_task(self._hold(f"held{index + 1}")))
        for index in range(self._fresh):
            self._running.append(self._tasks.create_task(self._reopen(f"fresh{index + 1}")))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    async def wait_commits(self, more: int, *, node: str | None = None, timeout: float = 20.0) -> None:
        """Wait for so many more commits (of one node, if named); TimeoutError after `timeout` seconds."""
        begun = len(self.commits)
        async with asyncio.timeout(timeout):
            while sum(node in (None, commit.node) for commit in self.commits[begun:]) < more:
                self._news.clear()
                await self._news.wait()

    async def wait_failures(self, more: int, *, timeout: float = 20.0) -> None:
        """Wait for so many more failures; TimeoutError after `timeout` seconds."""
        wanted = len(self.failures) + more
        async with asyncio.timeout(timeout):
            while len(self.failures) < wanted:
                self._news.clear()
                await self._news.wait()

    def reached_a_replica(self) -> list[Failure]:
        """Writes that a proxy sent to a replica, which refused them."""
        return [failure for failure in self.failures if failure.error == READ_ONLY]

    async def _hold(self, session: str) -> None:
        """Write over one connection for as long as it lives, then open the next one."""
        numbers = count(1)
        while True:
            connection = await self._connect(session, next(numbers))
            if connection is None:
                continue
            try:
                alive = True
                while alive:
                    alive = await self._write(connection, session, next(numbers))
                    await asyncio.sleep(PAUSE)
            finally:
                connection.terminate()

    async def _reopen(self, session: str) -> None:
        """Open a connection for each write."""
        numbers = count(1)
        while True:
            connection = await self._connect(session, next(numbers))
            if connection is None:
                continue
            try:
                await self._write(connection, session, next(numbers))
            finally:
                connection.terminate()
            await asyncio.sleep(PAUSE)

    async def _connect(self, session: str, number: int) -> "asyncpg.Connection[asyncpg.Record] | None":
        asked_at = boottime()
        try:
            return await asyncpg.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                database="postgres",
                ssl=False,
                timeout=PATIENCE,
                command_timeout=PATIENCE,
            )
        except LOST as error:
            self._failed(asked_at, session, number, connecting=True, error=error)
            await asyncio.sleep(PAUSE)
            return None

    async def _write(
        self, connection: "asyncpg.Connection[asyncpg.Record]", session: str, number: int
    ) -> bool:
        asked_at = boottime()
        try:
            row = await connection.fetchrow(INSERT, session, number)
        except LOST as error:
            self._failed(asked_at, session, number, connecting=False, error=error)
            return False
        assert row is not None, "INSERT ... RETURNING answers with a row"
        node = str(row["node"]).rpartition("/")[2]  # the cluster's folder stands before it
        timeline = int(row["timeline"], 16)
        self.commits.append(Commit(node, timeline, int(row["lsn"]), asked_at, boottime(), session, number))
        self._news.set()
        return True

    def _failed(
        self, asked_at: Instant, session: str, number: int, *, connecting: bool, error: Exception
    ) -> None:
        self._news.set()
        state = getattr(error, "sqlstate", None) or type(error).__name__
        self.failures.append(
            Failure(asked_at, boottime(), session, number, connecting, state, str(error).partition("\n")[0])
        )


def terms(commits: Iterable[Commit]) -> list[Term]:
    """Group commits by node and timeline, in the order of their first acknowledgement."""
    found: dict[tuple[str, int], Term] = {}
    for commit in sorted(commits, key=lambda one: one.done_at):
        key = (commit.node, commit.timeline)
        term = found.get(key)
        found[key] = Term(*key, commit if term is None else term.first, commit)
    return list(found.values())


def handovers(commits: Iterable[Commit]) -> list[Handover]:
    """Return each change of the node or timeline that takes writes."""
    return [Handover(old, new) for old, new in pairwise(terms(commits))]


def overlaps(commits: Iterable[Commit]) -> list[tuple[Term, Term]]:
    """Return the pairs of terms on different nodes during which both acknowledged writes."""
    found = terms(commits)
    return [
        (one, other)
        for index, one in enumerate(found)
        for other in found[index + 1 :]
        if one.node != other.node and other.first.done_at <= one.last.done_at
    ]


def superseded(commits: Iterable[Commit]) -> list[Commit]:
    """Return the writes that were asked for after a write on a later timeline had been acknowledged."""
    late: list[Commit] = []
    ordered = sorted(commits, key=lambda one: one.done_at)
    first_done: dict[int, Instant] = {}
    for commit in ordered:
        first_done.setdefault(commit.timeline, commit.done_at)
    for commit in ordered:
        later = [done for timeline, done in first_done.items() if timeline > commit.timeline]
        if any(done < commit.asked_at for done in later):
            late.append(commit)
    return late


def boottime() -> Instant:
    """CLOCK_BOOTTIME now, as the agents read it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
