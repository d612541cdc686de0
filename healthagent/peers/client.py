"""Asking the peers: each at its own pace, concurrently, every call under one deadline."""

import asyncio
import errno
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from healthagent.board import Board
from healthagent.core.model import Instant
from healthagent.core.peer import Source, Statement
from healthagent.peers.exchange import HEADER, Exchange, Overtaken
from healthagent.peers.patroni import statement_from
from healthagent.peers.resolve import Names
from healthagent.peers.troubles import Troubles, cause_of
from healthagent.wire import MAX_BYTES, Message, Misunderstood, decode, statement_of

MANY = 8  # peers: below this, asking all at once is no burst
SOONEST_AGAIN = 0.05  # seconds between two calls to one peer when changes follow each other
# what this machine lacks, not the network: no descriptor, no memory, no port left
LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
HINTS: Mapping[int, str] = {  # what an operator should look at
    HTTPStatus.UNAUTHORIZED: " (is peer.secret the same on both?)",
    HTTPStatus.FORBIDDEN: " (are peer.secret and tls.client_ca set there as they are here?)",
}


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
        self._answering: set[str] = set()  # after the last call to each: see answering()
        self._clock = clock
        self._names = names
        self._interval = interval
        self._timeout = timeout
        self.exchange = exchange
        self.describe: Callable[[Instant], Message] = board.describe  # what a signed question says of us
        self.tls = tls  # may be changed: connections from then on use it
        self._wakes: dict[str, asyncio.Event] = {}
        self._tasks: dict[Entry, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self.troubles = Troubles()

    def change(self, *, interval: float, timeout: float) -> None:
        """Use other durations from the next call on."""
        self._interval, self._timeout = interval, timeout

    def answering(self) -> int:
        """How many peers answer, understood or not, or cannot be asked for want of something on this machine.

        Who counts here and is not heard is no sign of a network that is cut.
        """
        known = [self.board.peers.get(name) for name in self._answering]
        return sum(peer is not None and peer.counts for peer in known)  # not this agent in its own list

    def hurry(self) -> None:
        """Ask, and with a secret tell, every peer now: this node's own state has changed."""
        for wake in self._wakes.values():
            wake.set()

    async def run(self) -> None:
        """Ask every peer for ever."""
        connector = aiohttp.TCPConnector(
            resolver=self._names, use_dns_cache=False, limit=0, keepalive_timeout=4
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
            self._forget(entry.name)
        new = [entry for entry in self.entries if entry not in self._tasks]
        for place, entry in enumerate(new):
            self._wakes[entry.name] = asyncio.Event()
            # spread over half the interval, so that many peers do not answer in one burst
            delay = self._interval / 2 * place / len(new) if len(new) > MANY else 0.0
            task = loops.create_task(self._ask_for_ever(session, entry, delay), name=f"peer {entry.name}")
            self._tasks[entry] = task

    def _forget(self, name: str) -> None:
        """Keep nothing of an entry that is gone: with DNS each restart of a peer may bring another."""
        self._wakes.pop(name, None)
        self.round_trips.pop(name, None)
        self._answering.discard(name)
        self.troubles.forget(name)
        for peer, kind in list(self.failures):
            if peer == name:
                del self.failures[peer, kind]

    async def _ask_for_ever(self, session: aiohttp.ClientSession, entry: Entry, delay: float) -> None:
        wake = self._wakes[entry.name]
        await asyncio.sleep(delay)
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
            self._misunderstand(entry, asked_at, str(error))
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL):  # of ours every URL is valid: a redirect's
            self._misunderstand(entry, asked_at, "what answers there does not speak HTTP")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a name that IDNA refuses
            timed_out = isinstance(error, TimeoutError)
            self.failures[entry.name, "timeout" if timed_out else "unreachable"] += 1
            if _is_ours(error):
                self._answering.add(entry.name)
            else:
                self._answering.discard(entry.name)
            now = self._clock()
            self.troubles.failed(entry.name, entry.url, cause_of(error, self._timeout), now)
            self.board.miss(entry.name, asked_at, now)
        else:
            now = self._clock()
            self._answering.add(entry.name)
            self.round_trips[entry.name] = now - asked_at
            self.troubles.answered(entry.name, now)
            if statement is not None:
                self.board.hear(entry.name, statement, now)

    def _misunderstand(self, entry: Entry, asked_at: Instant, why: str) -> None:
        now = self._clock()
        self._answering.add(entry.name)
        self.failures[entry.name, "misunderstood"] += 1
        self.troubles.answered(entry.name, now)
        self.board.miss(entry.name, asked_at, now)  # whatever answers, this peer did not
        self.board.misunderstand(entry.name, why, now)

    async def _statement(
        self, session: aiohttp.ClientSession, entry: Entry, asked_at: Instant
    ) -> Statement | None:
        """What the peer says; None when something younger of it has been heard meanwhile."""
        url, exchange = f"{entry.url}/peer", self.exchange
        if exchange is None:
            status, body, _ = await self._fetch(session, "GET", url)
            if status == HTTPStatus.OK:
                return statement_of(decode(body), asked_at, self._clock())
            why = f"/peer answered {status}"
        else:
            said, signature = exchange.send(self.describe(asked_at), self._label(entry), asked_at)
            headers = {HEADER: signature, "Content-Type": "application/json"}
            try:
                status, body, signed = await self._fetch(session, "POST", url, said, headers)
            except aiohttp.ClientConnectionError:
                if self._signs(entry):
                    raise
                status, body, signed = 0, b"", None  # Patroni may hang up on a body that it does not read
            if status == HTTPStatus.OK:
                return self._dated(exchange, body, signed, asked_at)
            why = f"/peer answered {status or 'nothing'} to a signed question"
            if self._signs(entry):
                # who has signed before does not turn into a Patroni node, whatever answers in its place
                raise Misunderstood(why + HINTS.get(status, ""))
        # no agent of ours answers /peer with anything else: perhaps a plain Patroni node
        _, node, _ = await self._fetch(session, "GET", f"{entry.url}/patroni")
        try:
            return statement_from(node, entry.name, asked_at, self._clock())
        except Misunderstood as error:
            raise Misunderstood(f"{why}{HINTS.get(status, '')}; /patroni: {error}") from None

    def _dated(
        self, exchange: Exchange, body: bytes, signed: str | None, asked_at: Instant
    ) -> Statement | None:
        try:
            message, composed_after = exchange.receive(body, signed)
        except Overtaken:
            return None
        if composed_after is None or composed_after < asked_at:
            raise Misunderstood("the answer belongs to another question")
        return statement_of(message, asked_at, self._clock())

    def _label(self, entry: Entry) -> str:
        """What the agent behind an entry calls itself, as far as that is known."""
        peer = self.board.peers.get(entry.name)
        return entry.name if peer is None else peer.label

    def _signs(self, entry: Entry) -> bool:
        """Whether it has answered as an agent before."""
        peer = self.board.peers.get(entry.name)
        statement = peer.statement if peer is not None else None
        return statement is not None and statement.source is Source.AGENT

    async def _fetch(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes, str | None]:
        """Status, bounded body and signature of one request; redirects are not followed."""
        async with session.request(
            method, url, data=body, headers=headers, allow_redirects=False, ssl=self.tls or True
        ) as response:
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > MAX_BYTES:
                    raise Misunderstood(f"the answer is longer than {MAX_BYTES} bytes")
            return response.status, bytes(answer), response.headers.get(HEADER)


def _is_ours(error: Exception) -> bool:
    """Whether a call failed for want of something here, or because TLS was refused: somebody was there."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(cause, ssl.SSLError | ssl.CertificateError | aiohttp.ClientSSLError) or (
        isinstance(cause, OSError) and cause.errno in LACKING
    )
