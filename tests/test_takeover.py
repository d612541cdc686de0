"""The hand-over from one agent to the next: what is said, what is refused, and what survives it."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from healthagent.agentcheck import AgentCheck
from healthagent.board import Board, Identity
from healthagent.config import FenceSettings
from healthagent.core.evidence import younger
from healthagent.core.members import joined
from healthagent.core.model import Failure, Local, Reason
from healthagent.core.peer import Alarm, Call, Candidate, Peer
from healthagent.core.view import Conflict, Memory, Rival, Signals
from healthagent.events import Events
from healthagent.fence import Fence
from healthagent.journal import Journal
from healthagent.keeper import Keeper
from healthagent.listening import Listening
from healthagent.notify import Notifier
from healthagent.server.answers import Answers
from healthagent.server.http import Surface
from healthagent.takeover import (
    Giver,
    Holders,
    PlaceError,
    Refused,
    Replaceable,
    TakeoverFailed,
    bind,
    knowledge,
)
from healthagent.takeover import giver as giving
from healthagent.takeover.channel import LENGTH, MOST_BYTES, Channel
from healthagent.takeover.messages import (
    VERSION,
    Bye,
    Go,
    Have,
    Hello,
    Knowledge,
    Message,
    No,
    Ready,
    Serving,
    Take,
)
from healthagent.takeover.place import NAME, connect, other_end
from tests.bed.boards import PRIMARY, START, Clock
from tests.bed.boards import board as watched
from tests.builders import NOW, failure, follower, memory, policy, snap, statement

SOON = 5.0  # seconds: nothing here waits for it to pass


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Channel, Channel]]:
    """Both ends of one conversation; that neither process ends is known at once."""
    monkeypatch.setattr(giving, "DEATH_WITHIN", 0.0)
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    found = Channel(one), Channel(other)
    yield found
    for end in found:
        end.close()


# The conversation.


@pytest.mark.parametrize(
    "message",
    [
        Hello(VERSION, "0.1.0", "pg1", "main"),
        Ready(True, None, {"pg2": None, "pg3": "no answer"}),
        Knowledge(bytes(range(256)) * 4096),
        No("pg9 runs here"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was_sent(ends: tuple[Channel, Channel], message: Message) -> None:
    one, other = ends
    one._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 1024 * 1024)
    one.send(message, SOON)
    if isinstance(message, No):
        with pytest.raises(Refused, match="pg9 runs here"):
            other.receive_any(SOON)
    else:
        assert other.receive(type(message), SOON) == message


def test_descriptors_come_with_their_message_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    one.send(Take(), SOON, [each.fileno() for each in sockets[:2]])
    one.send(Have(), SOON, [sockets[2].fileno()])
    other.receive(Take, SOON)
    other.receive(Have, SOON)
    received = other.take(3)
    assert [each.getsockname() for each in received] == [each.getsockname() for each in sockets]
    assert not any(os.get_inheritable(each.fileno()) for each in received)
    with pytest.raises(TakeoverFailed, match="0 descriptors instead of 1"):
        other.take(1)
    for each in (*sockets, *received):
        each.close()


@pytest.mark.parametrize(
    ("written", "why"),
    [
        pytest.param(b"", "hung up", id="nothing"),
        pytest.param(LENGTH.pack(4) + b"ab", "hung up", id="half a message"),
        pytest.param(LENGTH.pack(MOST_BYTES + 1), "a message of 67108865 bytes", id="too long"),
        pytest.param(LENGTH.pack(3) + b"\xc1\xc1\xc1", "cannot read", id="nonsense"),
        pytest.param(
            LENGTH.pack(15) + msgspec.msgpack.encode({"type": "Greet"})[:15].ljust(15, b"\xc0"),
            "cannot read",
            id="an unknown word",
        ),
        pytest.param(
            LENGTH.pack(len(msgspec.msgpack.encode(Go()))) + msgspec.msgpack.encode(Go()),
            "want Have, got Go",
            id="another word",
        ),
    ],
)
def test_what_is_no_answer_is_a_failure(ends: tuple[Channel, Channel], written: bytes, why: str) -> None:
    one, other = ends
    one._socket.sendall(written)
    one._socket.close()
    with pytest.raises(TakeoverFailed, match=why):
        other.receive(Have, SOON)


def test_silence_ends_after_its_budget(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(TakeoverFailed, match=r"no word of the other side within 0.01 s"):
        ends[0].receive(Have, 0.01)
    with pytest.raises(TakeoverFailed, match=r"does not read within 0.01 s"):
        ends[0].send(Knowledge(bytes(8 * 1024 * 1024)), 0.01)


# Where it is found.


def test_the_place_is_for_its_user_alone_and_goes_to_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 100) / ("b" * 100)  # longer than the address of a Unix socket may be
    folder.mkdir(parents=True)
    assert connect(folder) is None
    first = bind(folder)
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o600
    second = bind(folder)
    assert [each.name for each in folder.iterdir()] == [NAME]
    connection = connect(folder)
    assert connection is not None
    assert other_end(connection) == (os.getpid(), os.geteuid())
    accepted, _ = second.accept()
    with pytest.raises(BlockingIOError):
        first.accept()
    for each in (first, second, connection, accepted):
        each.close()
    assert connect(folder) is None  # a socket that a dead agent left behind


def test_a_place_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="No such file or directory"):
        bind(tmp_path / "missing")
    (tmp_path / NAME).mkdir()
    with pytest.raises(PlaceError, match="Is a directory"):
        bind(tmp_path)
    assert connect(tmp_path) is None


# What is known.


def holders(name: str = "pg1", *, remembered: Memory | None = None) -> Holders:
    board = Board(
        Identity(name, "main", f"start of {name}"),
        policy(),
        memory() if remembered is None else remembered,
        [Peer("pg2"), Peer("pg3")],
    )
    events = Events()
    return Holders(
        board,
        Journal(board, events),
        events,
        Fence(board, FenceSettings(), lambda: NOW, events),
        None,
        None,
        lambda: None,
    )


def test_a_successor_knows_all_that_its_predecessor_knew() -> None:
    rich = replace(
        memory(),
        high_water={7300000000000000001: 4, 1: 2},
        conflict=Conflict(
            (Rival(Candidate("pg2", 5), NOW),), Signals(timeline=Candidate("pg2", 5)), Candidate("pg2", 5)
        ),
        yields_to=Candidate("pg2", 5),
        yielded_until=float("-inf"),
    )
    old, new = holders(remembered=rich), holders(remembered=Memory(NOW))
    old.board.observe(snap(), NOW)
    old.board.hear("pg2", statement("pg2", follower("pg1")), NOW)
    old.board.miss("pg3", NOW - 1, NOW)
    old.board.observe_new_connection(failure(), NOW)
    old.journal.note(NOW)
    old.fence.ran = True
    new.go_on(knowledge.read(old.spelled()), NOW)
    assert new.board.memory == old.board.memory
    assert new.board.peers == old.board.peers
    assert new.board.local.snapshot == old.board.local.snapshot
    assert new.events.newest(9) == old.events.newest(9)
    assert new.fence.ran
    assert not new.journal.note(NOW)  # it says the same, which was logged
    assert new.board.describe(NOW) == msgspec.structs.replace(
        old.board.describe(NOW), incarnation=new.board.identity.incarnation
    )


def test_what_another_version_knows_is_read_as_far_as_possible() -> None:
    body = msgspec.msgpack.decode(holders().spelled())
    body["later"] = {"any": "thing"}
    body["memory"]["later"] = 1
    assert knowledge.read(msgspec.msgpack.encode(body)).memory == memory()
    del body["memory"]["started_at"]
    with pytest.raises(TakeoverFailed, match=r"cannot be read here.*started_at"):
        knowledge.read(msgspec.msgpack.encode(body))
    with pytest.raises(TakeoverFailed, match="cannot be read here"):
        knowledge.read(b"")


async def test_a_successor_does_not_write_again_what_is_in_the_file(tmp_path: Path) -> None:
    old, new = holders(), holders(remembered=Memory(NOW))
    first = Keeper(old.board, tmp_path, "this boot", lambda: NOW, None)
    first.follow(snap(), "pg1")
    first.follow(snap(timeline=2), "pg1")
    await first.save_now()
    second = Keeper(new.board, tmp_path, "this boot", lambda: NOW, None)
    history = second.history
    replace(new, keeper=second).go_on(knowledge.read(replace(old, keeper=first).spelled()), NOW)
    assert second._wanted(NOW) is None
    assert [switch.timeline for switch in history] == [1]
    second.follow(snap(timeline=3), "pg1")
    assert [switch.timeline for switch in history] == [1, 2]
    assert second._wanted(NOW) is not None


OLD, NEW = snap(age=0.4), snap(age=0.1)


def failed(age: float) -> Failure:
    return Failure(Reason.POSTGRES_DOWN, "it is down", NOW - age)


@pytest.mark.parametrize(
    ("one", "other", "known"),
    [
        pytest.param(Local(OLD), Local(NEW), Local(NEW), id="own evidence is younger"),
        pytest.param(Local(NEW), Local(OLD), Local(NEW), id="own evidence is older"),
        pytest.param(Local(OLD), Local(), Local(OLD), id="none of its own"),
        pytest.param(Local(), Local(NEW), Local(NEW), id="the other had none"),
        pytest.param(
            Local(OLD, failed(0.2)), Local(NEW), Local(NEW), id="the other's failure is over: seen since"
        ),
        pytest.param(
            Local(OLD, failed(0.05)),
            Local(NEW),
            Local(NEW, failed(0.05)),
            id="the other has seen it fail since",
        ),
        pytest.param(
            Local(NEW), Local(OLD, failed(0.05)), Local(NEW, failed(0.05)), id="it has seen it fail itself"
        ),
        pytest.param(
            Local(NEW, None, failed(0.1), 2), Local(NEW), Local(NEW), id="new connections are its own trials"
        ),
    ],
)
def test_the_younger_evidence_counts(one: Local, other: Local, known: Local) -> None:
    assert younger(one, other) == known


def test_what_was_heard_of_a_peer_is_joined() -> None:
    long_ago = replace(Peer("pg2"), last_call=Call(NOW - 2, NOW - 1.9), served_until=NOW - 60)
    old = joined(long_ago, Peer("pg2"))
    assert old == long_ago
    own = replace(
        Peer("pg2", witness=True), last_call=Call(NOW - 1, NOW - 0.9), statement=statement("pg2", age=1)
    )
    both = joined(long_ago, own)
    assert (both.last_call, both.statement, both.served_until) == (own.last_call, own.statement, NOW - 60)
    assert both.witness
    newer = replace(long_ago, statement=statement("pg2", age=0.1), last_call=Call(NOW - 0.2, NOW))
    assert joined(newer, own) == replace(newer, witness=True)
    stranger = replace(own, alarm=Alarm.WRONG_NAME)
    assert joined(newer, stranger).statement == newer.statement


def test_a_replica_s_last_word_does_not_wipe_what_its_promotion_left() -> None:
    """Old: promoted a moment ago. New: asked PostgreSQL just before that."""
    old, new = holders(), holders(remembered=Memory(NOW))
    old.board.observe(snap(timeline=2, age=0.0), NOW)
    new.board.observe(follower("pg2", age=0.4), NOW)
    new.go_on(knowledge.read(old.spelled()), NOW)
    assert new.board.memory.term == old.board.memory.term
    assert new.board.memory.term is not None


# Who may take over, and when.


class Ended(Exception):
    """The process would have ended."""


def end(code: int) -> NoReturn:
    raise Ended(f"exit {code}")


def start_anew() -> NoReturn:
    raise Ended("anew")


class Told(Notifier):
    """Keeps what the service manager would be told."""

    def __init__(self) -> None:
        super().__init__("/run/notify", 30.0)
        self.said: list[str] = []

    def _tell(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
async def giver(tmp_path: Path) -> AsyncIterator[Giver]:
    loop, node = asyncio.get_running_loop(), watched(PRIMARY)
    events = Events()
    kept = Holders(
        node,
        Journal(node, events),
        events,
        Fence(node, FenceSettings(), Clock(), events),
        None,
        None,
        lambda: None,
    )
    surface = Surface(Answers(node), Clock(), 100, loop)
    check = AgentCheck(node, Clock(), 100, loop)
    made = Giver(bind(tmp_path), Replaceable(kept, surface, check, Told(), Clock(), end, start_anew))
    yield made
    made._listener.close()


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        pytest.param(Hello(VERSION, "9", "pg1", "main"), None, id="its equal"),
        pytest.param(Hello(VERSION + 1, "9", "pg1", "main"), "version 9 takes 2", id="a later format"),
        pytest.param(Hello(VERSION, "9", "pg2", "main"), "and not pg2 of cluster main", id="another name"),
        pytest.param(
            Hello(VERSION, "9", "pg1", "other"), "and not pg1 of cluster other", id="another cluster"
        ),
    ],
)
async def test_who_may_replace_it(giver: Giver, hello: Hello, why: str | None) -> None:
    if why is None:
        giver._judge(hello)
    else:
        with pytest.raises(Refused, match=why):
            giver._judge(hello)


WHY = "connection refused"


@pytest.mark.parametrize(
    ("ready", "why"),
    [
        pytest.param(Ready(True, None, {"pg2": None, "pg3": None}), None, id="sees all"),
        pytest.param(Ready(False, None, {"pg2": None}), "not everything was asked", id="has not asked all"),
        pytest.param(Ready(True, WHY, {"pg2": None}), "PostgreSQL answers the running agent", id="no server"),
        pytest.param(Ready(True, None, {"pg2": WHY}), "pg2 answers the running agent", id="not pg2"),
        pytest.param(Ready(True, None, {"pg3": WHY}), None, id="not pg3, which nobody hears"),
        pytest.param(Ready(True, None, {"pg9": WHY}), None, id="not pg9, which is new"),
    ],
)
async def test_it_must_see_what_the_running_agent_sees(giver: Giver, ready: Ready, why: str | None) -> None:
    board = giver._parts.holders.board
    board.peers = {"pg2": Peer("pg2"), "pg3": Peer("pg3")}
    said = replace(statement("pg2"), asked_at=START, received_at=START)
    board.hear("pg2", said, START)
    found = giver._unseen(ready)
    assert found is None if why is None else found is not None and why in found


async def test_it_need_not_see_a_server_that_is_down_for_both(giver: Giver) -> None:
    giver._parts.holders.board.observe_failure(Failure(Reason.POSTGRES_DOWN, "down", START), START)
    assert giver._unseen(Ready(True, WHY, {})) is None


# The commit.


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        pytest.param([Have(), Serving()], "exit 0", id="it serves"),
        pytest.param([Have(), No("what")], "exit 1", id="it may serve, and says no"),
        pytest.param([Have(), None], "exit 1", id="it may serve, and hangs up"),
        pytest.param([No("no room")], None, id="it says no before the commit"),
        pytest.param([Serving()], None, id="it says what it cannot know"),
        pytest.param([None], None, id="it hangs up before the commit"),
    ],
)
async def test_before_go_all_goes_on_and_after_it_nothing_does(
    giver: Giver, ends: tuple[Channel, Channel], answers: list[Message | None], outcome: str | None
) -> None:
    own, other = ends
    for answer in answers:
        if answer is None:
            other._socket.shutdown(socket.SHUT_WR)
        else:
            other.send(answer, SOON)
    with pytest.raises(Ended if outcome else TakeoverFailed) as raised:
        giver._hand_over(own)
    assert outcome is None or str(raised.value) == outcome
    other.receive(Knowledge, SOON)
    notifier = giver._parts.notifier
    assert isinstance(notifier, Told)
    assert notifier.said == ([f"MAINPID={os.getpid()}"] if outcome == "exit 0" else [])
    if outcome is not None:
        other.receive(Go, SOON)
    if outcome == "exit 0":
        other.receive(Bye, SOON)


async def test_it_waits_for_a_fence_command_and_gives_up(
    giver: Giver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = giver._parts.holders.fence
    over = asyncio.Event()

    async def fencing() -> None:
        await over.wait()

    fence._hook = asyncio.create_task(fencing())
    monkeypatch.setattr("healthagent.takeover.giver.QUIET_WITHIN", -1.0)
    with pytest.raises(Refused, match="the fence command is running"):
        await giver._quiet()
    over.set()
    await fence._hook
    await giver._quiet()


async def test_one_that_is_stopping_hands_nothing_over(giver: Giver) -> None:
    giver._parts.holders.board.stop(START)
    with pytest.raises(Refused, match="the running agent is stopping"):
        await giver._quiet()


# Clients that change hands.


async def test_a_client_is_answered_by_the_second(giver: Giver) -> None:
    """One that has asked half a question, one that has not asked, and one of agent-check."""
    loop = asyncio.get_running_loop()
    first = giver._parts
    second = Surface(Answers(watched(PRIMARY)), Clock(), 100, loop)
    check = AgentCheck(watched(PRIMARY), Clock(), 100, loop)
    [port] = await first.surface.listen("127.0.0.1", 0)
    [check_port] = await first.agent_check.listen("127.0.0.1", 0)
    half = await asyncio.open_connection("127.0.0.1", port)
    half[1].write(b"GET /primary HTT")
    silent = await asyncio.open_connection("127.0.0.1", port)
    asks = await asyncio.open_connection("127.0.0.1", check_port)
    asks[1].write(b"prim")

    def moved() -> list[tuple[Surface | AgentCheck, int, bytes]]:
        return [
            (server, *state)
            for server, crowd in ((second, first.surface.crowd), (check, first.agent_check.crowd))
            for one in crowd
            if (state := one.unanswered()) is not None
        ]

    async with asyncio.timeout(SOON):
        while sorted(read for _, _, read in moved()) != [b"", b"GET /primary HTT", b"prim"]:  # noqa: ASYNC110 - only a test waits for a crowd
            await asyncio.sleep(0)
        for server, descriptor, read in moved():
            await server.adopt(socket.socket(fileno=os.dup(descriptor)), read)
        for one in (*first.surface.crowd, *first.agent_check.crowd):
            one.transport.pause_reading()  # the first one stands still
        half[1].write(b"P/1.1\r\nConnection: close\r\n\r\n")
        silent[1].write(b"GET /primary HTTP/1.0\r\n\r\n")
        asks[1].write(b"ary\n")
        assert (await half[0].readline()).startswith(b"HTTP/1.1 200 ")
        assert (await silent[0].readline()).startswith(b"HTTP/1.0 200 ")
        assert await asks[0].readline() == b"up\n"
    for _, writer in (half, silent, asks):
        writer.close()
    for one in (*first.surface.crowd, *first.agent_check.crowd):
        one.transport.abort()
    for server in (second, first.surface):
        await server.close()
    first.agent_check.close()


async def test_sockets_are_inherited_and_open_later() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as old:
        port = old.getsockname()[1]
        listening = Listening(loop, {f"127.0.0.1:{port}": [old]}, start=False)
        second = Surface(Answers(watched(PRIMARY)), Clock(), 100, loop, listening)
        assert await second.listen("127.0.0.1", port) == [port]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)  # waits in the queue
        writer.write(b"GET /primary HTTP/1.0\r\n\r\n")
        await asyncio.sleep(0)
        assert len(second.crowd) == 0
        await listening.open()
        async with asyncio.timeout(SOON):
            assert (await reader.readline()).startswith(b"HTTP/1.0 200 ")
        writer.close()
        await second.close()
