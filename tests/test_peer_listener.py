"""The answering half of the exchange over real sockets: who is answered, who believed, at what cost."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from struct import pack

import aiohttp
import pytest

from healthagent.board import Board, Identity
from healthagent.clock import boottime
from healthagent.core.peer import Peer
from healthagent.core.view import Memory, Policy
from healthagent.peers import listener as listening
from healthagent.peers.exchange import HEADER, Exchange
from healthagent.peers.listener import PeerListener
from healthagent.wire import MAX_BYTES, Message, decode
from tests.bed.peer_server import answering

SECRET = b"a secret of at least this many bytes"


def board(*peers: Peer, expected: int | None = None) -> Board:
    return Board(
        Identity("pg1", "main", "start of pg1"),
        Policy(durable=False, expected_members=expected),
        Memory(boottime() - 500),
        peers or (Peer("pg2"),),
    )


def said(name: str = "pg2", **more: object) -> Message:
    values: dict[str, object] = {
        "cluster": "main",
        "name": name,
        "incarnation": f"start of {name}",
        "uptime": 60.0,
        "serving": False,
    }
    return Message(**values | more)  # type: ignore[arg-type]  # the fields of a message


class Asker:
    """A peer that asks one agent."""

    def __init__(self, session: aiohttp.ClientSession, url: str, exchange: Exchange) -> None:
        self._session = session
        self._url = f"{url}/peer"
        self.exchange = exchange

    async def post(self, body: bytes, signature: str | None) -> tuple[int, bytes, str | None]:
        headers = {HEADER: signature} if signature is not None else {}
        async with self._session.post(self._url, data=body, headers=headers) as response:
            return response.status, await response.read(), response.headers.get(HEADER)

    async def ask(self, message: Message) -> Message:
        status, body, signature = await self.post(*self.exchange.send(message, "pg1", boottime()))
        assert status == 200, body
        return self.exchange.receive(body, signature)[0]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def theirs(incarnation: str = "start of pg2") -> Exchange:
    return Exchange(SECRET, incarnation)


def ours() -> Exchange:
    return Exchange(SECRET, "start of pg1")


async def test_without_a_secret_it_tells_and_hears_nothing(session: aiohttp.ClientSession) -> None:
    made = board()
    async with answering(made) as (url, listener):
        async with session.get(f"{url}/peer") as response:
            assert decode(await response.read()).name == "pg1"
        asker = Asker(session, url, theirs())
        status, body, _ = await asker.post(*asker.exchange.send(said(serving=True), "pg1", 1.0))
    assert (status, b"no peer.secret" in body) == (403, True)
    assert made.peers["pg2"].statement is None
    assert listener.rejected == {"no_secret": 1}


async def test_the_first_message_is_answered_and_the_second_believed(session: aiohttp.ClientSession) -> None:
    made = board()
    async with answering(made, ours()) as (url, _):
        asker = Asker(session, url, theirs())
        assert (await asker.ask(said())).name == "pg1"
        assert made.peers["pg2"].statement is None
        await asker.ask(said())
        assert made.peers["pg2"].statement is not None


async def test_a_date_is_that_of_our_message_not_of_the_arrival(session: aiohttp.ClientSession) -> None:
    made = board()
    async with answering(made, ours()) as (url, _):
        asker = Asker(session, url, theirs())
        await asker.ask(said())
        between = boottime()
        await asker.ask(said())
    statement = made.peers["pg2"].statement
    assert statement is not None
    assert statement.asked_at <= between <= statement.received_at


async def test_a_replay_changes_nothing(session: aiohttp.ClientSession) -> None:
    made = board()
    async with answering(made, ours()) as (url, listener):
        asker = Asker(session, url, theirs())
        await asker.ask(said())
        recorded = asker.exchange.send(said(serving=True), "pg1", boottime())
        assert (await asker.post(*recorded))[0] == 200
        await asker.ask(said(serving=False))
        young = made.peers["pg2"].statement
        assert (await asker.post(*recorded))[0] == 409
        assert made.peers["pg2"].statement is young
    assert listener.rejected == {"replayed": 1}


async def test_an_overtaken_message_is_answered_and_changes_nothing(session: aiohttp.ClientSession) -> None:
    made = board()
    async with answering(made, ours()) as (url, listener):
        asker = Asker(session, url, theirs())
        await asker.ask(said())
        slow = asker.exchange.send(said(serving=True), "pg1", boottime())
        await asker.ask(said(serving=False))
        young = made.peers["pg2"].statement
        assert (await asker.post(*slow))[0] == 200
        assert made.peers["pg2"].statement is young
    assert listener.rejected == {}


@pytest.mark.parametrize(
    ("message", "entry"),
    [
        pytest.param(said("pg2"), "pg2", id="a peer"),
        pytest.param(said("pg9"), None, id="a stranger"),
        pytest.param(said("pg1"), None, id="this agent's own name"),
        pytest.param(said("pg2", cluster="other"), None, id="another cluster"),
    ],
)
async def test_who_is_believed(session: aiohttp.ClientSession, message: Message, entry: str | None) -> None:
    made = board()
    async with answering(made, ours()) as (url, _):
        asker = Asker(session, url, theirs(f"start of {message.name}"))
        await asker.ask(message)
        await asker.ask(message)
    assert (made.peers["pg2"].statement is not None) == (entry is not None)


async def test_a_discovered_peer_that_came_back_elsewhere_must_be_asked_first(
    session: aiohttp.ClientSession,
) -> None:
    """Else what it pushes would keep its dead old address alive, and make the new one its duplicate."""
    made = board(Peer("10.0.0.2:8008", discovered=True), expected=2)
    old, new = said("pg2"), said("pg2", incarnation="second start of pg2")
    async with answering(made, ours()) as (url, _):
        asker = Asker(session, url, theirs())
        made.hear("10.0.0.2:8008", _statement(old), boottime())
        first = made.peers["10.0.0.2:8008"].statement
        reborn = Asker(session, url, theirs("second start of pg2"))
        await reborn.ask(new)
        await reborn.ask(new)
        assert made.peers["10.0.0.2:8008"].statement is first
        await asker.ask(old)


def _statement(message: Message):  # type: ignore[no-untyped-def]  # as the client makes it
    from healthagent.wire import statement_of

    return statement_of(message, boottime(), boottime())


@pytest.mark.parametrize(
    ("body", "signature", "status", "kind"),
    [
        pytest.param(b"{}", None, 401, "forged", id="not signed"),
        pytest.param(b"{}", "sha256=00", 401, "forged", id="a wrong signature"),
        pytest.param(b"{}", "\u00fc", 401, "forged", id="a signature that is no ASCII"),
        pytest.param(b"[]", ours()._sign(b"[]"), 400, "misunderstood", id="signed, and no message"),
        pytest.param(b"x" * (MAX_BYTES + 1), "sha256=00", 413, "too_long", id="too long"),
    ],
)
async def test_what_is_refused_is_counted_and_told_once(
    session: aiohttp.ClientSession,
    body: bytes,
    signature: str | None,
    status: int,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    made = board()
    async with answering(made, ours()) as (url, listener):
        asker = Asker(session, url, theirs())
        for _ in range(3):
            assert (await asker.post(body, signature))[0] == status
    assert listener.rejected == {kind: 3}
    assert made.peers["pg2"].statement is None
    [told] = [record.getMessage() for record in caplog.records if record.name.startswith("healthagent")]
    assert told.startswith("a peer's question from 127.0.0.1 was refused: ")


async def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "BODY_WITHIN", 0.2)
    async with answering(board(), ours()) as (url, listener):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /peer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()
    assert listener.rejected == {"too_slow": 1}
    assert listener._reading == 0


async def test_a_caller_that_breaks_off_amid_its_body_is_nobodys_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with answering(board(), ours()) as (url, listener):
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"POST /peer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            await writer.drain()
            await _reading(listener, 1)
            # l_onoff, l_linger: a reset instead of an orderly end
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
            writer.transport.abort()
            await _reading(listener, 0)
    assert caplog.records == []
    assert listener.rejected == {}


async def test_bodies_that_are_read_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MOST_AT_ONCE", 2)
    async with answering(board(), ours()) as (url, listener):
        port = int(url.rpartition(":")[2])
        held = []
        for _ in range(2):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /peer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
            held.append(writer)
        await _reading(listener, 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /peer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        async with asyncio.timeout(5):
            assert b" 503 " in await reader.readline()
        for one in (*held, writer):
            one.transport.abort()
    assert listener.rejected == {"too_many": 1}


async def _reading(listener: PeerListener, bodies: int) -> None:
    async with asyncio.timeout(5):
        while listener._reading != bodies:  # noqa: ASYNC110  # nothing tells when it changes
            await asyncio.sleep(0.005)
