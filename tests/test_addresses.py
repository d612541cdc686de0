"""The address book: whose PostgreSQL an upstream's address is, whatever peers may tell."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from healthagent.board import Board, Identity
from healthagent.core.peer import Peer
from healthagent.core.view import Memory
from healthagent.peers.addresses import Addresses
from healthagent.peers.resolve import Names
from tests.bed.boards import Clock
from tests.bed.gate import Gate
from tests.builders import NOW, policy, statement
from tests.test_resolve import Resolver, settled


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    monkeypatch.setattr(socket, "gethostname", lambda: "here")
    return made


@pytest.fixture
async def names(resolver: Resolver) -> AsyncIterator[Names]:
    made = Names(Clock())
    yield made
    await made.close()


def board(**reported: str | None) -> Board:
    """pg1's board; each peer has told the address given."""
    made = Board(
        Identity("pg1", "main", "start of pg1", "10.0.0.1:5433"),
        policy(),
        Memory(NOW - 500),
        [Peer(name) for name in reported],
    )
    for name, address in reported.items():
        made.hear(name, statement(name, address=address), NOW)
    return made


async def looked(
    made: Board, names: Names, urls: dict[str, str] | None = None, configured: dict[str, str] | None = None
) -> dict[str, set[tuple[str, int]]]:
    addresses = Addresses(made, names, lambda: urls or {}, configured or {})
    addresses.look()
    await settled(names)
    addresses.look()
    return {name: set(found) for name, found in made.addresses.items()}


async def test_what_a_peer_tells_and_the_host_of_its_url(names: Names, resolver: Resolver) -> None:
    resolver.table["db2"] = ["10.1.0.2"]
    found = await looked(board(pg2="db2:5433"), names, {"pg2": "http://10.0.0.2:8008"})
    assert found["pg2"] == {("10.1.0.2", 5433), ("10.0.0.2", 5433)}


@pytest.mark.parametrize(
    ("reported", "configured", "found"),
    [
        pytest.param(None, "10.0.0.2:5432", {("10.0.0.2", 5432)}, id="nothing told: the default"),
        pytest.param("10.0.0.2:5433", "10.0.0.2:5432", {("10.0.0.2", 5433)}, id="told: the default is wrong"),
        pytest.param(
            "10.0.0.2:5433",
            "10.9.0.2:5439",
            {("10.0.0.2", 5433), ("10.9.0.2", 5439)},
            id="told, and configured otherwise: both",
        ),
    ],
)
async def test_what_an_operator_configured(
    names: Names, reported: str | None, configured: str, found: set[tuple[str, int]]
) -> None:
    book = await looked(board(pg2=reported), names, {"pg2": "http://10.0.0.2:8008"}, {"pg2": configured})
    assert book["pg2"] == found


async def test_our_own(names: Names, resolver: Resolver) -> None:
    """Also as others reach this machine: here, over loopback."""
    resolver.table["here"] = ["10.7.0.1"]
    found = await looked(board(pg2=None), names, {"pg2": "http://127.0.0.1:8008"})
    assert found["pg1"] == {("10.0.0.1", 5433), ("10.7.0.1", 5433), ("127.0.0.1", 5433)}


async def test_one_agent_under_two_entries(names: Names) -> None:
    """Before and after its pod was restarted: a follower may still spell the old address."""
    made = Board(
        Identity("pg1", "main", "start of pg1"),
        policy(expected_members=2),
        Memory(NOW - 500),
        [Peer("10.0.0.2:8008", discovered=True), Peer("10.0.0.3:8008", discovered=True)],
    )
    made.hear("10.0.0.2:8008", statement("pg2", address="10.0.0.2:5432"), NOW)
    made.hear("10.0.0.3:8008", statement("pg2", incarnation="second", address="10.0.0.3:5432"), NOW)
    assert (await looked(made, names))["pg2"] == {("10.0.0.2", 5432), ("10.0.0.3", 5432)}


@pytest.mark.parametrize(
    ("told", "found"),
    [
        pytest.param("10.0.0.9", {("10.0.0.9", 5432)}, id="no port"),
        pytest.param("[fd00::2]:5433", {("fd00::2", 5433)}, id="IPv6"),
        pytest.param("10.0.0.9:", {("10.0.0.9", 5432)}, id="an empty port"),
        pytest.param("10.0.0.9:\u00b2", {("10.0.0.9", 5432)}, id="a port that only looks like a digit"),
        pytest.param("10.0.0.9:" + "9" * 200, {("10.0.0.9", 5432)}, id="a huge port"),
        pytest.param("a..b:5432", set(), id="a name that is none"),
        pytest.param("x" * 200 + ":5432", set(), id="a label that is too long"),
        pytest.param("a\0b:5432", set(), id="a zero byte"),
        pytest.param("", set(), id="nothing"),
        pytest.param(":5432", set(), id="no host"),
    ],
)
async def test_whatever_a_peer_tells(told: str, found: set[tuple[str, int]]) -> None:
    names = Names(Clock())  # with the real resolver: it has errors of its own
    assert (await looked(board(pg2=told), names))["pg2"] == found
    await names.close()


async def test_a_name_that_hangs_delays_no_other(
    names: Names, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gate() as gate:
        monkeypatch.setattr(socket, "getaddrinfo", gate.through(resolver))
        made = board(pg2="mute:5432", pg3="10.0.0.3:5432")
        Addresses(made, names, dict, {}).look()
        assert made.addresses["pg2"] == frozenset()
        assert made.addresses["pg3"] == {("10.0.0.3", 5432)}


async def test_a_machine_without_ipv6(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def no_ipv6(family: int = socket.AF_INET, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest)

    monkeypatch.setattr(socket, "socket", no_ipv6)
    found = await looked(board(pg2=None), names, {"pg2": "http://[fd00::2]:8008"})
    assert found["pg1"] == {("10.0.0.1", 5433)}


async def test_it_runs_at_once(names: Names) -> None:
    made = board(pg2="10.0.0.2:5432")
    task = asyncio.create_task(Addresses(made, names, dict, {}).run())
    await asyncio.sleep(0)
    assert made.addresses["pg2"] == {("10.0.0.2", 5432)}
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
