"""Asking the peers: each at its own pace, concurrently, every call under one deadline."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from ..board import Board
from ..core.model import Instant, Source, Statement
from ..wire import MAX_BYTES, Misunderstood, decode, statement_of
from .exchange import HEADER, Exchange
from .patroni import statement_from
from .resolve import Names

MANY = 8  # peers: below this, asking all at once is no burst
SOONEST_AGAIN = 0.05  # seconds between two calls to one peer when changes follow each other


@dataclass(frozen=True, slots=True)
class Entry:
    """One peer as it is asked."""

    name: str
    url: str


class PeerClient:
    """Keep the board's evidence of its peers fresh: `await client.run()`, ended by cancelling it."""

    def __init__(
        self,
        board: Board,
        entries: Sequence[Entry],
        clock: Callable[[], Instant],
        names: Names,
        *,
        interval: float,
        timeout: float,
        exchange: Exchange | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.board = board
        self.entries = tuple(entries)
        self.failures: Counter[tuple[str, str]] = Counter()  # (peer, kind) for the metrics
        self.round_trips: dict[str, float] = {}  # seconds of each peer's last answered call
        self._clock = clock
        self._names = names
        self._interval = interval
        self._timeout = timeout
        self.exchange = exchange
        self._tls = tls
        self._wakes: dict[str, asyncio.Event] = {}
        self._tasks: dict[Entry, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def change(self, *, interval: float, timeout: float) -> None:
        """Use other durations from the next call on."""
        self._interval, self._timeout = interval, timeout

    def hurry(self) -> None:
        """Ask, and with a secret tell, every peer now: this node's own state has changed."""
        for wake in self._wakes.values():
            wake.set()

    async def run(self) -> None:
        """Ask every peer for ever."""
        connector = aiohttp.TCPConnector(
            resolver=self._names, use_dns_cache=False, limit=0, ssl=self._tls or True, keepalive_timeout=4
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # each call has a budget of its own
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept-Encoding"),
                trust_env=False,
            ) as session,
            asyncio.TaskGroup() as loops,
        ):
            while True:
                self._changed.clear()
                self._start_and_stop(session, loops)
                await self._changed.wait()

    def replace_entries(self, entries: Sequence[Entry]) -> None:
        """Ask these from now on: those that stay are not disturbed."""
        self.entries = tuple(entries)
        self._changed.set()

    def _start_and_stop(self, session: aiohttp.ClientSession, loops: asyncio.TaskGroup) -> None:
        for entry in [entry for entry in self._tasks if entry not in self.entries]:
            self._tasks.pop(entry).cancel()
        new = [entry for entry in self.entries if entry not in self._tasks]
        for place, entry in enumerate(new):
            self._wakes[entry.name] = asyncio.Event()
            # spread over half the interval, so that many peers do not answer in one burst
            delay = self._interval / 2 * place / len(new) if len(new) > MANY else 0.0
            task = loops.create_task(self._ask_for_ever(session, entry, delay), name=f"peer {entry.name}")
            self._tasks[entry] = task

    async def _ask_for_ever(self, session: aiohttp.ClientSession, entry: Entry, delay: float) -> None:
        await asyncio.sleep(delay)
        wake = self._wakes[entry.name]
        while True:
            wake.clear()
            begun_at = self._clock()
            await self._ask(session, entry)
            self.board.end_call(entry.name, begun_at, self._clock())
            await asyncio.sleep(SOONEST_AGAIN)
            rest = min(begun_at + self._interval - self._clock(), self._interval)
            if rest > 0:
                try:
                    async with asyncio.timeout(rest):
                        await wake.wait()
                except TimeoutError:
                    pass

    async def _ask(self, session: aiohttp.ClientSession, entry: Entry) -> None:
        """Ask one peer once; however it ends, the board knows."""
        asked_at = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                statement = await self._statement(session, entry, asked_at)
        except Misunderstood as error:
            self.failures[entry.name, "misunderstood"] += 1
            self.board.misunderstand(entry.name, str(error), self._clock())
        except TimeoutError:
            self.failures[entry.name, "timeout"] += 1
            self.board.miss(entry.name, asked_at, self._clock())
        except (aiohttp.ClientError, OSError, ValueError):
            # ValueError: aiohttp raises it for answers that its parser cannot turn into HTTP
            self.failures[entry.name, "unreachable"] += 1
            self.board.miss(entry.name, asked_at, self._clock())
        else:
            now = self._clock()
            self.round_trips[entry.name] = now - asked_at
            self.board.hear(entry.name, statement, now)

    async def _statement(self, session: aiohttp.ClientSession, entry: Entry, asked_at: Instant) -> Statement:
        if self.exchange is None:
            status, body, _ = await _fetch(session, "GET", f"{entry.url}/peer")
        else:
            said, signature = self.exchange.send(self.board.describe(asked_at), entry.name, asked_at)
            status, body, signed = await _fetch(
                session,
                "POST",
                f"{entry.url}/peer",
                said,
                {HEADER: signature, "Content-Type": "application/json"},
            )
            if status == HTTPStatus.OK:
                message, composed_after = self.exchange.receive(body, signed)
                if composed_after is None or composed_after < asked_at:
                    raise Misunderstood("the answer belongs to another question")
                return statement_of(message, asked_at, self._clock())
            self._refuse_unsigned(entry, status)
        if status == HTTPStatus.OK:
            return statement_of(decode(body), asked_at, self._clock())
        # no agent of ours answers /peer with anything else: perhaps a plain Patroni node
        _, node, _ = await _fetch(session, "GET", f"{entry.url}/patroni")
        try:
            return statement_from(node, entry.name, asked_at, self._clock())
        except Misunderstood as error:
            raise Misunderstood(f"/peer answered {status}, /patroni: {error}") from None

    def _refuse_unsigned(self, entry: Entry, status: int) -> None:
        """Who has signed before does not turn into a Patroni node, whatever answers in its place."""
        peer = self.board.peers.get(entry.name)
        if peer is not None and peer.statement is not None and peer.statement.source is Source.AGENT:
            raise Misunderstood(f"/peer answered {status} to a signed question")


async def _fetch(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes, str | None]:
    """Status, bounded body and signature of one request; redirects are not followed."""
    async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
        answer = bytearray()
        async for chunk in response.content.iter_any():
            answer += chunk
            if len(answer) > MAX_BYTES:
                raise Misunderstood(f"the answer is longer than {MAX_BYTES} bytes")
        return response.status, bytes(answer), response.headers.get(HEADER)
