"""When PostgreSQL is asked, and what becomes of the connections.

Two loops. One polls the held connection each `interval`; a connection that is lost is an event and is
followed by a probe at once. The other opens a new connection each `reconnect_every`, which then takes the
held one's place: only so are settings of new sessions seen, and a server that admits nobody any more.
Neither waits for the other, so a new connection that hangs never delays a poll.
"""

import asyncio
from typing import Protocol

from healthagent.core.model import Failure, Instant, Snapshot
from healthagent.postgres.failure import EXPECTED, failure, is_shutting_down
from healthagent.postgres.session import Clock, ConnectArguments, Session


class Sink(Protocol):
    """Who is told: called from the event loop, must return quickly and not raise."""

    def observe(self, snapshot: Snapshot) -> None: ...

    def observe_failure(self, failure: Failure) -> None: ...

    def observe_new_connection(self, failure: Failure | None) -> None:
        """A new connection was tried, and failed so, or did not (None)."""

    def probe_took(self, seconds: float) -> None: ...


class Poller:
    """Ask one PostgreSQL for ever: `await poller.run()`, ended by cancelling it.

    `arguments` are those of asyncpg.connect(); times are in seconds, `clock` is CLOCK_BOOTTIME.
    """

    def __init__(
        self,
        arguments: ConnectArguments,
        sink: Sink,
        clock: Clock,
        *,
        interval: float = 0.5,
        timeout: float = 1.0,
        reconnect_every: float = 10.0,
    ) -> None:
        self._arguments = arguments
        self._sink = sink
        self._clock = clock
        self._interval = interval
        self._timeout = timeout
        self._reconnect_every = reconnect_every
        self._held: Session | None = None
        self._next: Session | None = None  # newly opened: takes the held one's place at the next poll
        self._lost = asyncio.Event()  # the held connection is gone, and no poll has noticed
        self._woken_at: Instant = float("-inf")

    def change(self, *, interval: float, timeout: float, reconnect_every: float) -> None:
        """Use other durations from the next poll on."""
        self._interval, self._timeout, self._reconnect_every = interval, timeout, reconnect_every

    async def run(self) -> None:
        """Poll until cancelled; that ends all connections at once."""
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._poll(), name="postgres poll")
                loops.create_task(self._renew(), name="postgres renew")
        finally:
            self._take_next()
            self._hold(None)

    async def _poll(self) -> None:
        while True:
            started_at = self._clock()
            found = await self._probe()
            self._sink.probe_took(self._clock() - started_at)
            if isinstance(found, Snapshot):
                self._sink.observe(found)
            else:
                self._sink.observe_failure(found)
            await self._pause(started_at)

    async def _probe(self) -> Snapshot | Failure:
        """Ask the held connection, or a new one where there is none or it fails, all in one budget.

        What a held connection fails with is no verdict: it may have been ended by an administrator. What
        becomes of a new one is.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        self._take_next()
        try:
            if self._held is not None:
                try:
                    return await self._held.ask(self._clock, deadline)
                except TimeoutError:
                    raise
                except EXPECTED:
                    self._hold(None)
            session = await Session.open(self._arguments, self._timeout, deadline)
            self._hold(session)
            snapshot = await session.ask(self._clock, deadline)
        except EXPECTED as error:
            self._hold(None)
            return failure(error, self._clock(), self._timeout)
        self._sink.observe_new_connection(None)
        return snapshot

    async def _pause(self, started_at: Instant) -> None:
        """Wait until `interval` after the last probe began, or until the held connection is lost.

        A server that answers and then hangs up each time wakes us once an interval, not in a hot loop.
        """
        rest = min(started_at + self._interval - self._clock(), self._interval)
        try:
            async with asyncio.timeout(rest):
                await self._lost.wait()
        except TimeoutError:
            return
        now = self._clock()
        if now - self._woken_at < self._interval:
            await asyncio.sleep(started_at + self._interval - now)
        self._woken_at = self._clock()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._reconnect_every)
            deadline = asyncio.get_running_loop().time() + self._timeout
            try:
                session = await Session.open(self._arguments, self._timeout, deadline)
                await session.ask(self._clock, deadline)
            except EXPECTED as error:
                self._sink.observe_new_connection(failure(error, self._clock(), self._timeout))
                if is_shutting_down(error):
                    # A smart shutdown waits until the last session ends: it must not wait for ours.
                    self._hold(None)
                    self._lost.set()
            else:
                if self._next is not None:
                    self._next.terminate()
                self._next = session
                self._sink.observe_new_connection(None)

    def _take_next(self) -> None:
        if self._next is not None:
            self._hold(self._next)
            self._next = None

    def _hold(self, session: Session | None) -> None:
        """Hold this session from now on and drop the one held before."""
        if self._held is not None:
            self._held.terminate()
        self._held = session
        self._lost.clear()
        if session is not None:
            session.connection.add_termination_listener(self._on_termination)

    def _on_termination(self, connection: object) -> None:
        if self._held is not None and self._held.connection is connection:
            self._lost.set()
