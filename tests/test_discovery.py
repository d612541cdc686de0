"""Members found by DNS: addresses come and go, the number of members does not."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import dns.asyncresolver
import pytest

from healthagent.board import Board, Identity
from healthagent.clock import boottime
from healthagent.config import Discovery
from healthagent.core.peer import Alarm, Peer
from healthagent.core.view import Memory
from healthagent.peers import discovery as discovering
from healthagent.peers.client import PeerClient
from healthagent.peers.discovery import KEPT_FOR, Discoverer
from healthagent.peers.resolve import KEPT_FOR as GOOD_FOR
from healthagent.peers.resolve import Names
from tests.bed.boards import Clock
from tests.builders import NOW, policy, statement
from tests.test_resolve import Resolver, settled

ONE, TWO, THREE = "10.0.0.1:8008", "10.0.0.2:8008", "10.0.0.3:8008"


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


class Site:
    """A discoverer on a clock of the test, with its board and client."""

    def __init__(self, discovery: Discovery) -> None:
        self.clock = Clock(NOW)
        self.names = Names(self.clock)
        chosen = policy(expected_members=discovery.expected, durable=False)
        self.board = Board(Identity("pg1", "main", "start of pg1"), chosen, Memory(NOW - 500))
        self.client = PeerClient(self.board, [], self.clock, self.names, interval=0.5, timeout=1.0)
        self.discoverer = Discoverer(self.board, self.client, discovery, self.names, self.clock)

    async def look(self) -> list[str]:
        """One look; the entries that are asked from then on."""
        self.clock.now += GOOD_FOR + 1
        with contextlib.suppress(OSError):
            await self.names.addresses(self.discoverer._name)  # due: in the background
            await settled(self.names)
        await self.discoverer.look()
        assert sorted(self.board.peers) == sorted(entry.name for entry in self.client.entries)
        return [entry.name for entry in self.client.entries]

    def hears(self, entry: str, name: str, incarnation: str | None = None) -> Peer:
        found = statement(
            name,
            incarnation=incarnation or f"start of {name}",
            asked_at=self.clock.now,
            received_at=self.clock.now,
        )
        self.board.hear(entry, found, self.clock.now)
        return self.board.peers[entry]


@pytest.fixture
async def site(resolver: Resolver) -> AsyncIterator[Site]:
    resolver.table["pg"] = ["10.0.0.3", "10.0.0.1", "10.0.0.2"]
    made = Site(Discovery(expected=3, dns="pg"))
    yield made
    await made.names.close()


async def test_every_address_is_a_member(site: Site) -> None:
    assert await site.look() == [ONE, TWO, THREE]
    assert [entry.url for entry in site.client.entries] == [f"http://{name}" for name in (ONE, TWO, THREE)]
    assert all(peer.discovered for peer in site.board.peers.values())


async def test_ipv6(site: Site, resolver: Resolver) -> None:
    resolver.table["pg"] = ["fd00::2"]
    assert await site.look() == ["[fd00::2]:8008"]


async def test_this_agent_among_them_is_dropped_by_incarnation(site: Site) -> None:
    await site.look()
    assert site.hears(ONE, "pg1").alarm is Alarm.SELF
    site.hears(TWO, "pg2")
    site.hears(THREE, "pg3")
    assert site.board.members(site.clock.now) == (3, 3)


async def test_the_number_of_members_is_the_expected_one(site: Site, resolver: Resolver) -> None:
    resolver.table["pg"] = ["10.0.0.1"]
    await site.look()
    site.hears(ONE, "pg1")
    assert site.board.members(site.clock.now) == (3, 1)


async def test_names_are_learned(site: Site) -> None:
    await site.look()
    assert site.hears(TWO, "pg2").label == "pg2"
    assert site.board.peers[THREE].label == THREE


async def test_one_agent_under_two_addresses(site: Site) -> None:
    await site.look()
    site.hears(TWO, "pg2")
    assert site.hears(THREE, "pg2").alarm is Alarm.DUPLICATE
    assert site.board.members(site.clock.now) == (3, 2)


async def test_an_address_that_is_new(site: Site, resolver: Resolver) -> None:
    await site.look()
    known = site.hears(TWO, "pg2")
    resolver.table["pg"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert await site.look() == [ONE, TWO, THREE, "10.0.0.4:8008"]
    assert site.board.peers[TWO].statement is known.statement


@pytest.mark.parametrize(
    ("silent_for", "kept"),
    [
        pytest.param(0.0, True, id="it answers"),
        pytest.param(KEPT_FOR, True, id="silent: what was heard of it may still forbid something"),
        pytest.param(KEPT_FOR + 0.001, False, id="silent for long"),
    ],
)
async def test_an_address_that_dns_forgets(
    site: Site, resolver: Resolver, silent_for: float, kept: bool
) -> None:
    await site.look()
    resolver.table["pg"] = ["10.0.0.1", "10.0.0.2"]
    await site.look()
    resolver.table["pg"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    await site.look()
    site.clock.now += 100
    resolver.table["pg"] = ["10.0.0.1", "10.0.0.2"]
    with contextlib.suppress(OSError):
        await site.names.addresses("pg")
        await settled(site.names)
    site.hears(THREE, "pg3")
    site.clock.now += silent_for
    await site.discoverer.look()
    assert (THREE in site.board.peers) == kept


async def test_an_address_that_was_never_heard_is_forgotten_with_dns(site: Site, resolver: Resolver) -> None:
    await site.look()
    resolver.table["pg"] = ["10.0.0.1", "10.0.0.2"]
    assert await site.look() == [ONE, TWO]


async def test_it_comes_and_goes(site: Site, resolver: Resolver) -> None:
    for _ in range(3):
        resolver.table["pg"] = ["10.0.0.1", "10.0.0.2"]
        assert await site.look() == [ONE, TWO]
        resolver.table["pg"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        assert await site.look() == [ONE, TWO, THREE]


async def test_a_pod_that_came_back_with_another_address(site: Site, resolver: Resolver) -> None:
    """The old address is silent; the agent counts once, by its new one."""
    await site.look()
    site.hears(ONE, "pg1")
    site.hears(TWO, "pg2")
    site.hears(THREE, "pg3")
    resolver.table["pg"] = ["10.0.0.1", "10.0.0.2", "10.0.0.9"]
    site.clock.now += 5
    assert await site.look() == [ONE, TWO, "10.0.0.9:8008", THREE]
    site.hears(TWO, "pg2")
    assert site.hears("10.0.0.9:8008", "pg3", "second start of pg3").alarm is None
    assert site.board.members(site.clock.now) == (3, 3)


async def test_addresses_are_bounded(site: Site, resolver: Resolver) -> None:
    for start in range(1, 200, 20):
        resolver.table["pg"] = [f"10.0.{start}.{number}" for number in range(1, 200)]
        for name in await site.look():
            site.hears(name, f"node {name}")
    assert len(site.board.peers) <= 9


async def test_the_last_list_stays_while_dns_fails(
    site: Site, resolver: Resolver, caplog: pytest.LogCaptureFixture
) -> None:
    await site.look()
    resolver.table["pg"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    for _ in range(3):
        assert await site.look() == [ONE, TWO, THREE]


async def test_a_name_that_was_never_resolved_is_told_once(
    site: Site, resolver: Resolver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    good = resolver.table.pop("pg")
    for _ in range(3):
        assert await site.look() == []
    resolver.table["pg"] = good
    await site.look()
    assert [record.getMessage() for record in caplog.records] == [
        "discovery: pg: Name or service not known",
        "discovery: pg resolves again",
        f"discovery: pg are now {ONE}, {TWO}, {THREE}",
    ]


# SRV records, through dnspython and a name server of our own.


class SrvServer(asyncio.DatagramProtocol):
    """Answers every SRV query with the same targets; none: NXDOMAIN. RFC 1035 section 4, RFC 2782."""

    def __init__(self, targets: list[tuple[str, int]] | None) -> None:
        self.targets = targets
        self.silent = False
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._transport is not None, "it was entered"
        self._transport.close()

    @property
    def port(self) -> int:
        assert self._transport is not None, "it was entered"
        return int(self._transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None, "it was entered"
        if self.silent:
            return
        end = data.index(b"\0", 12) + 5
        answers = b"".join(_srv(*target) for target in self.targets or [])
        flags = 0x8400 | (3 if self.targets is None else 0)
        header = data[:2] + struct.pack("!HHHHH", flags, 1, len(self.targets or []), 0, 0)
        self._transport.sendto(header + data[12:end] + answers, addr)


def _srv(target: str, port: int) -> bytes:
    name = b"".join(bytes([len(label)]) + label.encode() for label in target.split(".") if label) + b"\0"
    data = struct.pack("!HHH", 0, 0, port) + name
    return struct.pack("!HHHIH", 0xC00C, 33, 1, 5, len(data)) + data


@contextlib.asynccontextmanager
async def srv(
    targets: list[tuple[str, int]] | None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[SrvServer, Site]]:
    async with SrvServer(targets) as server:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.port
        monkeypatch.setattr(dns.asyncresolver, "default_resolver", resolver)
        yield server, Site(Discovery(expected=3, srv="_http._tcp.pg.example"))


async def test_every_target_of_an_srv_record_is_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    async with srv([("pg2.example", 8009), ("pg1.example", 8008)], monkeypatch) as (server, site):
        await site.discoverer.look()
        assert [entry.url for entry in site.client.entries] == [
            "http://pg1.example:8008",
            "http://pg2.example:8009",
        ]
        server.targets = [("pg2.example", 8009)]
        await site.discoverer.look()
        assert [entry.name for entry in site.client.entries] == ["pg2.example:8009"]


async def test_a_service_that_says_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with srv([(".", 0)], monkeypatch) as (_, site):
        await site.discoverer.look()
        assert site.client.entries == ()


async def test_no_srv_records_are_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with srv(None, monkeypatch) as (_, site):
        for _ in range(3):
            await site.discoverer.look()
    assert [record.getMessage() for record in caplog.records] == [
        "discovery: _http._tcp.pg.example: no SRV records: NXDOMAIN"
    ]


async def test_a_name_server_that_is_silent_is_told_once_and_costs_only_the_budget(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(discovering, "BUDGET", 0.1)
    async with srv([("pg1.example", 8008)], monkeypatch) as (server, site):
        await site.discoverer.look()
        server.silent = True
        begun = boottime()
        for _ in range(3):
            await site.discoverer.look()
        assert boottime() - begun < 3.0
        assert [entry.name for entry in site.client.entries] == ["pg1.example:8008"]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "discovery: _http._tcp.pg.example: no answer in time"
    ]
