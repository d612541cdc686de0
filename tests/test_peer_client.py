"""Asking the peers: whatever answers, or does not, the evidence is right and the log is short."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from msgspec.structs import replace as changed

from healthagent.board import Board, Identity
from healthagent.clock import boottime
from healthagent.core.members import heard
from healthagent.core.model import Role, Snapshot
from healthagent.core.peer import Alarm, Peer, Source
from healthagent.core.view import Memory, Policy
from healthagent.peers import resolve
from healthagent.peers.client import Entry, PeerClient
from healthagent.peers.exchange import HEADER, Exchange
from healthagent.peers.resolve import Names
from healthagent.wire import MAX_BYTES, Message, SnapshotSaid, decode, encode
from tests.bed.gate import Gate
from tests.bed.peer_server import Play, WildPeer, answering, http
from tests.builders import SYSTEM

SECRET = b"a secret of at least this many bytes"
INTERVAL, TIMEOUT = 0.05, 0.3


def board(name: str = "pg1", peers: Iterable[str] = ("pg2",), **more: object) -> Board:
    """An agent that has been serving for long."""
    now = boottime()
    policy = Policy(durable=False, peer_interval=INTERVAL, peer_timeout=TIMEOUT, **more)  # type: ignore[arg-type]
    made = Board(
        Identity(name, "main", f"start of {name}"),
        policy,
        Memory(now - 500),
        [Peer(peer, discovered=policy.expected_members is not None) for peer in peers],
    )
    made.observe(Snapshot(now, Role.PRIMARY if name == "pg1" else Role.REPLICA, SYSTEM, 1), now)
    return made


@contextlib.asynccontextmanager
async def asking(
    made: Board,
    urls: dict[str, str],
    exchange: Exchange | None = None,
    interval: float = INTERVAL,
    names: type[Names] = Names,
) -> AsyncIterator[PeerClient]:
    """A client at work; it must end at once, whatever it waits for."""
    resolver = names(boottime)
    entries = [Entry(name, url) for name, url in urls.items()]
    client = PeerClient(
        made, entries, boottime, resolver, interval=interval, timeout=TIMEOUT, exchange=exchange
    )
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2.0)
        assert done, "a cancelled client waits for something"
        await resolver.close()
        if not task.cancelled():
            task.result()


def said(name: str = "pg2", **more: object) -> Message:
    """A message of a peer that is a replica."""
    snapshot = SnapshotSaid(age=0.1, role="replica", system_identifier=str(SYSTEM), timeline=1)
    values: dict[str, object] = {
        "cluster": "main",
        "name": name,
        "incarnation": f"start of {name}",
        "uptime": 60.0,
        "serving": False,
        "snapshot": snapshot,
    }
    return Message(**values | more)  # type: ignore[arg-type]  # the fields of a message


def with_fields(**fields: object) -> bytes:
    content = json.loads(encode(said())) | fields
    return http(json.dumps(content).encode())


async def test_a_peer_is_heard() -> None:
    made = board()
    async with WildPeer(http(encode(said()))) as peer, asking(made, {"pg2": peer.url}) as client:
        await peer.asked(2)
    known = made.peers["pg2"]
    assert known.statement is not None
    assert (known.statement.name, known.statement.role, known.alarm) == ("pg2", Role.REPLICA, None)
    assert known.last_call is not None
    assert 0 < client.round_trips["pg2"] < TIMEOUT
    assert client.failures == {}


# What is understood of other versions.


@pytest.mark.parametrize(
    ("answer", "role"),
    [
        pytest.param(with_fields(v=99, colour="blue", sees=[]), Role.REPLICA, id="a future format"),
        pytest.param(with_fields(reason="holiday", replica_reason="x"), Role.REPLICA, id="unknown reasons"),
        pytest.param(with_fields(snapshot={"age": 0.1, "role": "cascade"}), None, id="an unknown role"),
        pytest.param(
            http(b'{"cluster": "main", "name": "pg2", "incarnation": "i", "uptime": 1, "serving": false}'),
            None,
            id="hardly any fields",
        ),
    ],
)  # fmt: skip
async def test_an_agent_of_another_version_is_heard_and_costs_no_200(
    answer: bytes, role: Role | None
) -> None:
    made = board()
    async with WildPeer(answer) as peer, asking(made, {"pg2": peer.url}):
        await peer.asked(2)
        now = boottime()
        made.observe(Snapshot(now, Role.PRIMARY, SYSTEM, 1), now)
        found = heard(made.peers["pg2"], now, made.policy)
        assert found is not None
        assert found.role == role
        # a first 200 waits for nothing but rules that have nothing to do with versions
        await peer.asked(4)
        assert made.primary(boottime()).ok


# What is not understood.


async def trickle(line: str, writer: asyncio.StreamWriter) -> None:
    """One byte a moment, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def trickle_chunks(line: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def trickle_headers(line: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X")
        await writer.drain()
        await asyncio.sleep(0.05)


async def continue_for_ever(line: str, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


async def silence(line: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def reset(line: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def hang_up(line: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()


async def say_nothing(line: str, writer: asyncio.StreamWriter) -> None:
    pass


def bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    small = packer.compress(b" " * 50_000_000) + packer.flush()
    return http(small, "200 OK", "Content-Encoding: gzip")


MISUNDERSTOOD, UNREACHABLE, TIMED_OUT = "misunderstood", "unreachable", "timeout"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(silence, TIMED_OUT, id="accepts, then is silent"),
        pytest.param(trickle, TIMED_OUT, id="trickles"),
        pytest.param(trickle_chunks, TIMED_OUT, id="trickles in chunks"),
        pytest.param(trickle_headers, TIMED_OUT, id="trickles headers"),
        pytest.param(continue_for_ever, TIMED_OUT, id="100 Continue, again and again"),
        pytest.param(reset, UNREACHABLE, id="resets amid the body"),
        pytest.param(hang_up, UNREACHABLE, id="hangs up amid the body"),
        pytest.param(say_nothing, UNREACHABLE, id="hangs up at once"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", MISUNDERSTOOD, id="a chunk of zz"
        ),
        pytest.param(http(b"[" + b" " * 10_000_000 + b"]"), MISUNDERSTOOD, id="10 MB"),
        pytest.param(http(b"x" * (MAX_BYTES + 1)), MISUNDERSTOOD, id="one byte too long"),
        pytest.param(bomb(), MISUNDERSTOOD, id="a gzip bomb"),
        pytest.param(http(b""), MISUNDERSTOOD, id="an empty body"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", MISUNDERSTOOD, id="204"),
        pytest.param(http(b"<html>"), MISUNDERSTOOD, id="no JSON"),
        pytest.param(http(b"[" * 100_000), MISUNDERSTOOD, id="deep JSON"),
        pytest.param(http(b"[]"), MISUNDERSTOOD, id="a list"),
        pytest.param(http(b"{}"), MISUNDERSTOOD, id="nothing of a message"),
        pytest.param(with_fields(serving="yes"), MISUNDERSTOOD, id="a wrong type"),
        pytest.param(with_fields(uptime=-1), MISUNDERSTOOD, id="a negative age"),
        pytest.param(with_fields(uptime=float("nan")), MISUNDERSTOOD, id="NaN"),
        pytest.param(with_fields(uptime=float("inf")), MISUNDERSTOOD, id="Infinity"),
        pytest.param(with_fields(uptime=1e300), MISUNDERSTOOD, id="a huge age"),
        pytest.param(with_fields(counter=2**64), MISUNDERSTOOD, id="a huge counter"),
        pytest.param(with_fields(name="x" * 256), MISUNDERSTOOD, id="a long name"),
        pytest.param(http(b"", "302 Found", "Location: http://127.0.0.1:1/"), MISUNDERSTOOD, id="a redirect"),
        pytest.param(http(b"", "404 Not Found"), MISUNDERSTOOD, id="404 on everything"),
        pytest.param(http(b"{}", "503 Service Unavailable"), MISUNDERSTOOD, id="503 and no Patroni either"),
        pytest.param(b"\0\1\2\3 garbage\r\n\r\n", MISUNDERSTOOD, id="no HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", MISUNDERSTOOD, id="an SSH server"),
        pytest.param(http(b"", "200 OK", *(f"X-{n}: y" for n in range(9999))), MISUNDERSTOOD, id="headers"),
        pytest.param(http(b"", "200 OK", "X: " + "y" * 1_000_000), MISUNDERSTOOD, id="a header of 1 MB"),
    ],
)  # fmt: skip
async def test_a_bad_answer(answer: bytes | Play, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Counted, logged once, and no evidence: neither for nor against anybody."""
    caplog.set_level(logging.INFO)
    made = board()
    async with WildPeer(answer) as peer, asking(made, {"pg2": peer.url}) as client:
        await peer.asked(5)
        known, now = made.peers["pg2"], boottime()
    assert set(client.failures) == {("pg2", kind)}
    assert client.failures["pg2", kind] >= 1
    assert (known.alarm is Alarm.MISUNDERSTOOD) == (kind == MISUNDERSTOOD)
    assert known.statement is None
    assert known.silent_since is not None
    assert known.last_call is not None
    assert heard(known, now, made.policy) is None
    told = [record.getMessage() for record in caplog.records if record.name.startswith("healthagent")]
    assert len(told) == (0 if kind == MISUNDERSTOOD else 1), told


async def test_the_words_of_an_alarm_stay_the_same(caplog: pytest.LogCaptureFixture) -> None:
    made, words = board(), set()
    async with WildPeer(http(b"{}", "503 No")) as peer, asking(made, {"pg2": peer.url}):
        for times in range(2, 6):
            await peer.asked(2 * times)
            words.add(made.peers["pg2"].alarm_detail)
    assert len(words) == 1


async def test_nobody_listens(free_port: Callable[[], int], caplog: pytest.LogCaptureFixture) -> None:
    made, port = board(), free_port()
    async with (
        WildPeer(http(encode(said("pg3")))) as steady,
        asking(made, {"pg2": f"http://127.0.0.1:{port}", "pg3": steady.url}) as client,
    ):
        await steady.asked(10)
    assert client.failures["pg2", "unreachable"] > 3
    [told] = [record.getMessage() for record in caplog.records if record.name.startswith("healthagent")]
    assert told == f"peer pg2: http://127.0.0.1:{port}: Connection refused"


class Lacking(Names):
    """A machine that has no descriptor left, or one whose network is gone."""

    number = errno.EMFILE

    async def resolve(self, *_: object, **__: object) -> Any:
        raise OSError(self.number, os.strerror(self.number))


class CutOff(Lacking):
    number = errno.ENETUNREACH


@pytest.mark.parametrize(
    ("answer", "names", "answering"),
    [
        pytest.param(http(encode(said())), Names, 1, id="heard"),
        pytest.param(http(b"[]"), Names, 1, id="not understood"),
        pytest.param(http(b"", "401 Unauthorized"), Names, 1, id="our signature is refused"),
        pytest.param(http(encode(said("pg1", incarnation="start of pg1"))), Names, 0, id="ourselves"),
        pytest.param(say_nothing, Names, 0, id="hung up on: a proxy does so whose other side is gone"),
        pytest.param(None, Names, 0, id="nobody listens, or a firewall refuses"),
        pytest.param(None, Lacking, 1, id="no descriptor left to ask with"),
        pytest.param(None, CutOff, 0, id="no network"),
    ],
)
async def test_who_answers_at_all(answer: bytes | Play | None, names: type[Names], answering: int) -> None:
    """A primary that hears no majority is fenced only if those that answer are no majority either."""
    made = board()
    async with WildPeer(answer or b"") as peer:
        url = "http://localhost:1" if answer is None else peer.url
        async with asking(made, {"pg2": url}, names=names) as client, asyncio.timeout(20):
            while made.peers["pg2"].last_call is None:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
            assert client.answering() == answering


async def test_a_silent_peer_slows_no_other() -> None:
    made = board(peers=("pg2", "pg3"))
    async with (
        WildPeer(silence) as mute,
        WildPeer(http(encode(said("pg3")))) as quick,
        asking(made, {"pg2": mute.url, "pg3": quick.url}),
    ):
        await quick.asked(8)
        assert len(mute.requests) <= 4


async def test_what_was_heard_stays_while_answers_are_bad() -> None:
    """It ages by itself; and whoever was serving is silent from the first bad answer on."""
    made = board()
    good = http(encode(said(serving=True)))
    async with WildPeer(good) as peer, asking(made, {"pg2": peer.url}):
        await peer.asked(2)
        peer.answer = http(b"nonsense")
        before = boottime()
        await peer.asked(len(peer.requests) + 4)
        known = made.peers["pg2"]
        assert known.statement is not None
        assert known.statement.serving
        assert known.silent_since is not None
        assert known.silent_since >= before - 1.0
        first = known.silent_since
        await peer.asked(len(peer.requests) + 3)
        assert made.peers["pg2"].silent_since == first


async def test_a_change_is_asked_about_at_once() -> None:
    made = board()
    async with (
        WildPeer(http(encode(said()))) as peer,
        asking(made, {"pg2": peer.url}, interval=30.0) as client,
    ):
        await peer.asked(1)
        for times in range(2, 5):
            client.hurry()
            await peer.asked(times, within=5.0)


async def test_another_list_of_peers() -> None:
    made = board(peers=("pg2", "pg3"))
    async with (
        WildPeer(http(encode(said()))) as old,
        WildPeer(http(encode(said()))) as new,
        asking(made, {"pg2": old.url, "pg3": "http://127.0.0.1:1"}) as client,
    ):
        await old.asked(2)
        made.replace_peers([Peer("pg2")], boottime())
        client.replace_entries([Entry("pg2", new.url)])
        await new.asked(2)
        asked = len(old.requests)
        await new.asked(6)
        assert len(old.requests) == asked
        assert set(client._wakes) == {"pg2"}
        assert not any(name == "pg3" for name, _ in client.failures)


# Who is not who was meant.


@pytest.mark.parametrize(
    ("message", "alarm"),
    [
        pytest.param(said("pg9"), Alarm.WRONG_NAME, id="a wrong name"),
        pytest.param(said(cluster="other"), Alarm.FOREIGN_CLUSTER, id="another cluster"),
        pytest.param(said(incarnation="start of pg1"), Alarm.SELF, id="this agent under another name"),
    ],
)
async def test_an_agent_that_was_not_meant(message: Message, alarm: Alarm) -> None:
    made = board()
    async with WildPeer(http(encode(message))) as peer, asking(made, {"pg2": peer.url}):
        await peer.asked(2)
    assert made.peers["pg2"].alarm is alarm


async def test_one_agent_under_two_addresses_counts_once_and_is_not_lost_with_one() -> None:
    made = board(peers=("a:1", "b:1"), expected_members=3)
    async with WildPeer(http(encode(said()))) as one, WildPeer(http(encode(said()))) as other:
        async with asking(made, {"a:1": one.url}):
            await one.asked(2)
        async with asking(made, {"b:1": other.url}):
            await other.asked(2)
        assert made.peers["b:1"].alarm is Alarm.DUPLICATE
        assert made.members(boottime()) == (3, 2)
        made.policy = Policy(
            durable=False, expected_members=3, peer_max_age=0.0
        )  # the first one is stale now
        async with asking(made, {"b:1": other.url}):
            await other.asked(len(other.requests) + 2)
        assert made.peers["b:1"].alarm is None


# With a secret.


async def test_two_agents_that_share_a_secret_hear_each_other() -> None:
    here, there = board("pg1"), board("pg2", ("pg1",))
    mine, yours = Exchange(SECRET, "start of pg1"), Exchange(SECRET, "start of pg2")
    async with answering(there, yours) as (url, listener), asking(here, {"pg2": url}, mine) as client:
        await _until(client, lambda: there.peers["pg1"].statement and here.peers["pg2"].statement)
    heard_here, heard_there = here.peers["pg2"].statement, there.peers["pg1"].statement
    assert heard_here is not None
    assert heard_here.name == "pg2"
    assert heard_there is not None
    assert heard_there.role is Role.PRIMARY
    assert listener.rejected == {}
    assert client.failures == {}


async def test_discovered_agents_with_a_secret_hear_what_is_pushed() -> None:
    """Known by an address, until it says its name: a push must echo what was read from that name."""
    here, there = board("pg1", ("x:1",), expected_members=2), board("pg2", ("y:1",), expected_members=2)
    mine, yours = Exchange(SECRET, "start of pg1"), Exchange(SECRET, "start of pg2")
    async with answering(here, mine) as (back, _), answering(there, yours) as (url, _):
        async with asking(there, {"y:1": back}, yours) as client:
            await _until(client, lambda: there.peers["y:1"].statement is not None)
        before = there.peers["y:1"].statement
        async with asking(here, {"x:1": url}, mine) as client:
            await _until(client, lambda: there.peers["y:1"].statement is not before)


async def _until(client: PeerClient, condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            client.hurry()
            await asyncio.sleep(0.01)  # the other tasks' turn


async def forge(line: str, writer: asyncio.StreamWriter) -> None:
    writer.write(http(encode(said()), "200 OK", f"{HEADER}: sha256={'0' * 64}"))


def replay() -> bytes:
    body, signature = Exchange(SECRET, "start of pg2").send(said(), "pg1", 0.0)
    return http(body, "200 OK", f"{HEADER}: {signature}")


PATRONI = http(
    b'{"state":"running","role":"primary","timeline":1,"database_system_identifier":"1",'
    b'"patroni":{"version":"4.1.5","scope":"hp","name":"n1"}}',
    "503 Service Unavailable",
)
OURS = http(b'{"state":"running","role":"primary","patroni":{},"healthagent":{}}', "403 Forbidden")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(http(encode(said())), "not signed", id="no signature"),
        pytest.param(forge, "signature is wrong", id="a forged signature"),
        pytest.param(replay(), "another question", id="a recorded answer"),
        pytest.param(http(b"{}", "401 Unauthorized"), "peer.secret", id="it refuses our signature"),
        pytest.param(OURS, "peer.secret", id="an agent without a secret"),
    ],
)
async def test_a_peer_without_our_secret_is_not_believed(answer: bytes | Play, words: str) -> None:
    made = board()
    async with (
        WildPeer(answer) as peer,
        asking(made, {"pg2": peer.url}, Exchange(SECRET, "start of pg1")),
    ):
        await peer.asked(2, "POST")
        alarm = made.peers["pg2"].alarm_detail
    assert made.peers["pg2"].statement is None
    assert words in alarm


async def hang_up_on_post(line: str, writer: asyncio.StreamWriter) -> None:
    if not line.startswith("POST"):
        writer.write(PATRONI.replace(b"HTTP/1.1", b"HTTP/1.0"))


@pytest.mark.parametrize(
    "answer", [pytest.param(PATRONI, id="answers POST"), pytest.param(hang_up_on_post, id="hangs up on POST")]
)
async def test_a_patroni_node_among_agents_with_a_secret(answer: bytes | Play) -> None:
    made = board()
    async with (
        WildPeer(answer) as peer,
        asking(made, {"pg2": peer.url}, Exchange(SECRET, "start of pg1")),
    ):
        await peer.asked(2, "POST")
    found = made.peers["pg2"].statement
    assert found is not None
    assert (found.source, found.serving) == (Source.PATRONI, True)


async def test_who_signed_once_does_not_become_a_patroni_node() -> None:
    here, there = board("pg1"), board("pg2", ("pg1",))
    mine = Exchange(SECRET, "start of pg1")
    async with answering(there, Exchange(SECRET, "start of pg2")) as (url, _):
        port = int(url.rpartition(":")[2])
        async with asking(here, {"pg2": url}, mine) as client:
            await _until(client, lambda: here.peers["pg2"].statement is not None)
    impostor = WildPeer(PATRONI)
    impostor.port = port
    async with impostor, asking(here, {"pg2": url}, mine):
        await impostor.asked(3)
        assert not any("/patroni" in line for line in impostor.requests)
    known = here.peers["pg2"]
    assert known.statement is not None
    assert known.statement.source is Source.AGENT
    assert known.alarm is Alarm.MISUNDERSTOOD


async def test_an_answer_that_a_younger_push_has_overtaken_is_no_fault() -> None:
    made = board()
    mine, yours = Exchange(SECRET, "start of pg1"), Exchange(SECRET, "start of pg2")
    answered: list[bytes] = []
    ours = changed(said(), name="pg1", incarnation="start of pg1")
    yours.receive(*mine.send(ours, "pg2", boottime()))  # so that its pushes can be dated

    async def late(line: str, writer: asyncio.StreamWriter) -> None:
        """Answer with what was composed before the push that the listener has heard meanwhile."""
        slow = yours.send(said(), "pg1", boottime())
        push = yours.send(said(), "pg1", boottime())
        mine.receive(*push)
        body, signature = slow
        answered.append(body)
        writer.write(http(body, "200 OK", f"{HEADER}: {signature}"))

    async with WildPeer(late) as peer, asking(made, {"pg2": peer.url}, mine) as client:
        await peer.asked(4)
    assert len(answered) >= 3
    assert client.failures == {}
    assert made.peers["pg2"].alarm is None
    assert changed(decode(answered[0]), counter=0, echo=None) == said()


# Names.


async def test_a_resolver_that_hangs_costs_one_call_its_budget_and_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, real = board(peers=("pg2", "pg3")), socket.getaddrinfo

    def table(host: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "mute.example" else host, *rest, **more)

    with Gate() as gate:
        monkeypatch.setattr(socket, "getaddrinfo", gate.through(table))
        async with WildPeer(http(encode(said()))) as named, WildPeer(http(encode(said("pg3")))) as steady:
            urls = {"pg2": f"http://mute.example:{named.port}", "pg3": steady.url}
            async with asking(made, urls) as client:
                await steady.asked(12)
                before = boottime()
                assert made.primary(before).reason is not None
                assert boottime() - before < 0.1
                assert client.failures["pg2", "timeout"] >= 1
                assert named.requests == []
                gate.open()
                await named.asked(2)
    assert made.peers["pg2"].statement is not None
    [told] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == f"peer pg2: {urls['pg2']}: no answer within 0.3 s"


async def test_a_peer_that_moved_is_asked_at_its_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "KEPT_FOR", 0.0)
    made, real, where = board(), socket.getaddrinfo, ["127.0.0.1"]

    def table(host: str, *rest: Any, **more: Any) -> Any:
        return real(where[0], *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", table)
    async with (
        WildPeer(http(encode(said()), "200 OK", "Connection: close")) as old,
        asking(made, {"pg2": f"http://moved.example:{old.port}"}),
    ):
        await old.asked(2)
        new = WildPeer(http(encode(said())))
        new.host, new.port = "127.0.0.2", old.port
        async with new:
            where[0] = new.host
            await new.asked(2)
