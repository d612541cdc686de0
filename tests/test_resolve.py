"""Names to addresses: off the loop, within the caller's budget, and the last good ones are kept."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from healthagent.peers import resolve
from healthagent.peers.resolve import KEPT_FOR, Names
from tests.bed.boards import Clock
from tests.bed.gate import Gate

Table = dict[str, list[str] | Exception]


class Resolver:
    """socket.getaddrinfo as a test wants it."""

    def __init__(self) -> None:
        self.table: Table = {}
        self.asked: list[str] = []

    def __call__(self, host: str, port: object, **_: object) -> list[Any]:
        self.asked.append(host)
        found = self.table.get(host, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(found, Exception):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 0)) for address in found]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


@pytest.fixture
async def names(clock: Clock, resolver: Resolver) -> AsyncIterator[Names]:
    made = Names(clock)
    yield made
    await made.close()


async def settled(names: Names) -> None:
    """Wait for what is being looked up in the background."""
    async with asyncio.timeout(10):
        while names._pending:
            await asyncio.wait(list(names._pending.values()))


async def test_a_name(names: Names, resolver: Resolver) -> None:
    resolver.table["pg2"] = ["10.0.0.2", "10.0.0.2", "FD00::2"]
    assert await names.addresses("pg2") == ("10.0.0.2", "fd00::2")
    assert [found["family"] for found in await names.resolve("pg2", 8008)] == [
        socket.AF_INET,
        socket.AF_INET6,
    ]
    assert resolver.asked == ["pg2"]


async def test_an_address_is_no_name(names: Names, resolver: Resolver) -> None:
    assert await names.addresses("FD00::2") == ("fd00::2",)
    assert names.known("10.0.0.2") == ("10.0.0.2",)
    assert resolver.asked == []


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(socket.gaierror(socket.EAI_NONAME, "Name or service not known"), id="no such name"),
        pytest.param(UnicodeError("label too long"), id="a label that is too long"),
        pytest.param(ValueError("embedded null character"), id="a zero byte"),
    ],
)
async def test_a_name_that_does_not_resolve(names: Names, resolver: Resolver, error: Exception) -> None:
    resolver.table["pg2"] = error
    with pytest.raises(OSError, match=r"pg2|Name"):
        await names.addresses("pg2")
    names.refresh("pg2")
    await settled(names)  # nothing is left to complain about later
    assert names.known("pg2") == ()


@pytest.mark.parametrize(
    ("passed", "asked"),
    [pytest.param(KEPT_FOR, 1, id="still good"), pytest.param(KEPT_FOR + 0.001, 2, id="looked up again")],
)
async def test_how_long_an_address_is_good(
    names: Names, resolver: Resolver, clock: Clock, passed: float, asked: int
) -> None:
    resolver.table["pg2"] = ["10.0.0.2"]
    await names.addresses("pg2")
    clock.now += passed
    await names.addresses("pg2")
    await settled(names)
    assert len(resolver.asked) == asked


async def test_a_changed_address_is_taken_and_nobody_waits_for_it(
    names: Names, resolver: Resolver, clock: Clock
) -> None:
    resolver.table["pg2"] = ["10.0.0.2"]
    await names.addresses("pg2")
    resolver.table["pg2"] = ["10.0.0.99"]
    clock.now += KEPT_FOR + 1
    assert await names.addresses("pg2") == ("10.0.0.2",)
    await settled(names)
    assert await names.addresses("pg2") == ("10.0.0.99",)


async def test_the_last_good_address_is_kept(names: Names, resolver: Resolver, clock: Clock) -> None:
    resolver.table["pg2"] = ["10.0.0.2"]
    await names.addresses("pg2")
    resolver.table["pg2"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    for _ in range(3):
        clock.now += KEPT_FOR + 1
        assert await names.addresses("pg2") == ("10.0.0.2",)
        await settled(names)
        assert await names.addresses("pg2") == ("10.0.0.2",)  # not again at once
    assert len(resolver.asked) == 4


async def test_a_resolver_that_hangs_blocks_nobody_beyond_its_budget(
    names: Names, resolver: Resolver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver.table |= {"pg2": ["10.0.0.2"], "pg3": ["10.0.0.3"]}
    await names.addresses("pg2")
    clock.now += KEPT_FOR + 1
    with Gate() as gate:
        monkeypatch.setattr(socket, "getaddrinfo", gate.through(resolver))
        assert await names.addresses("pg2") == ("10.0.0.2",)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await names.addresses("pg3")
        gate.open()
        assert await names.addresses("pg3") == ("10.0.0.3",)  # the same look-up, shielded from the deadline
    assert resolver.asked.count("pg3") == 1


async def test_names_are_bounded(names: Names, resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer may tell another name with every answer."""
    monkeypatch.setattr(resolve, "MOST_NAMES", 3)
    for number in range(5):
        resolver.table[f"pg{number}"] = [f"10.0.0.{number}"]
        await names.addresses(f"pg{number}")
    assert len(names._known) == 3
    with Gate() as gate:
        monkeypatch.setattr(socket, "getaddrinfo", gate.through(resolver))
        for number in range(10, 20):
            names.refresh(f"pg{number}")
        assert len(names._pending) == 3
        with pytest.raises(OSError, match="is not looked up"):
            await names.addresses("pg99")


async def test_closing_waits_for_nobody(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(clock)
    with Gate() as gate:
        monkeypatch.setattr(socket, "getaddrinfo", gate.through(lambda *_, **__: []))
        names.refresh("pg2")
        async with asyncio.timeout(1):
            await names.close()
