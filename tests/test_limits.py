"""Bounds on clients: how many, how long; who makes room, and that descriptors are left for the rest."""

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator

import pytest

from healthagent import crowd as crowd_module
from healthagent.server.answers import Answers
from healthagent.server.http import Surface
from healthagent.server.limits import CERTAINLY_ENOUGH, RESERVED_FILES, raise_file_limit
from tests.bed.boards import PRIMARY, START, board

QUESTION = b"GET /primary HTTP/1.1\r\nHost: pg1\r\n\r\n"
MOST = 5


@pytest.fixture
async def surface(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Surface]:
    """At most five connections, each with a fifth of a second of patience."""
    monkeypatch.setattr(crowd_module, "PATIENCE", 0.2)
    made = Surface(Answers(board(PRIMARY)), lambda: START, MOST, asyncio.get_running_loop())
    async with asyncio.TaskGroup() as tasks:
        reaper = tasks.create_task(made.crowd.reap())
        yield made
        reaper.cancel()
    await made.close()


async def connect(surface: Surface) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not surface.listening.offers():
        await surface.listen("127.0.0.1", 0)
    [[descriptor]] = surface.listening.offers().values()
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        return await asyncio.open_connection(*listener.getsockname())


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether a question is answered with 200; False when the connection has ended."""
    try:
        writer.write(QUESTION)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
    except (OSError, asyncio.IncompleteReadError):
        return False
    return head.startswith(b"HTTP/1.1 200 ")


async def test_the_longest_waiting_makes_room(surface: Surface) -> None:
    clients = [await connect(surface) for _ in range(MOST)]
    assert [await answered(*client) for client in clients] == [True] * MOST
    assert await answered(*clients[0])  # the second has now waited longest
    newest = await connect(surface)
    assert await answered(*newest)
    assert [await answered(*client) for client in clients] == [True, False, True, True, True]
    assert len(surface.crowd) == MOST
    for _, writer in (*clients, newest):
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"GET /pri", id="half a line"),
        pytest.param(b"GET /metrics HTTP/1.1\r\nX: ", id="half a header"),
        pytest.param(QUESTION, id="silent after an answer"),
        pytest.param(QUESTION + b"GET", id="half a second question"),
        pytest.param(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", id="no body"),
    ],
)
async def test_who_does_not_go_on_is_dropped(surface: Surface, sent: bytes) -> None:
    reader, writer = await connect(surface)
    writer.write(sent)
    async with asyncio.timeout(3):
        with contextlib.suppress(ConnectionError):
            await reader.read()
    assert len(surface.crowd) == 0
    writer.close()


async def test_who_goes_on_is_kept(surface: Surface) -> None:
    reader, writer = await connect(surface)
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - began < 0.6:  # three times the patience
        assert await answered(reader, writer)
    writer.close()


@pytest.mark.parametrize(
    ("limits", "connections"),
    [
        pytest.param((1024, 4096), 4096 - RESERVED_FILES, id="the soft limit is raised to the hard one"),
        pytest.param((1024, 1024), 1024 - RESERVED_FILES, id="nothing to raise"),
        pytest.param((64, 64), 16, id="a few at least"),
        pytest.param((1024, 1 << 20), CERTAINLY_ENOUGH, id="no more than enough"),
        pytest.param(
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY), CERTAINLY_ENOUGH, id="no limit at all"
        ),
    ],
)
def test_the_file_limit(limits: tuple[int, int], connections: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: set_to.append(new))
    assert raise_file_limit() == connections
    assert set_to == [(limits[1], limits[1])]


def test_a_file_limit_that_may_not_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_which: int, _new: tuple[int, int]) -> None:
        raise PermissionError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_file_limit() == 1024 - RESERVED_FILES
