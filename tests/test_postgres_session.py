"""A session is opened in time or not at all, whatever listens there; nothing is left behind."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import cast

import pytest

from healthagent.core.model import Failure, Reason
from healthagent.postgres import failure
from healthagent.postgres.session import Session

# For "localhost", self-signed until 2126; it guards nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggC9mKgK6bqkagSG2
zwxUu60/7hZdsQLQ0F92hLZ7Q7mhRANCAAQPHQGAxN6Zyhu2+kLAoIsewyYp90Ft
rJUAIb+8SYg0M+/umUEmRzt78di8npUepjEVhGbhpo4hEygy9W/hEHBf
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBfjCCASWgAwIBAgIUZFHM+h/B+p1+JEDVRAaYvGGWkYEwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTIzMTcwNloYDzIxMjYxMDI4
MjMxNzA2WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQPHQGAxN6Zyhu2+kLAoIsewyYp90FtrJUAIb+8SYg0M+/umUEmRzt7
8di8npUepjEVhGbhpo4hEygy9W/hEHBfo1MwUTAdBgNVHQ4EFgQUBczsrs0JOOK7
gdP+ktMhNzFF+h8wHwYDVR0jBBgwFoAUBczsrs0JOOK7gdP+ktMhNzFF+h8wDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiB2+rvHOv2rASaWvTHslmmH
r9Lat9Jgexzqb7/D0EcOYgIgdTpsMrMKp5Ptw8dlgJ6N+CnK6wanizglDt+iOUge
kzs=
-----END CERTIFICATE-----
"""


async def refused(arguments: dict[str, object], budget: float = 5.0) -> Failure:
    """Open a session that must fail, and say how."""
    deadline = asyncio.get_running_loop().time() + budget
    with pytest.raises(failure.EXPECTED) as caught:
        await Session.open(arguments, budget, deadline)
    return failure.failure(caught.value, 0, budget)


@pytest.mark.parametrize("tls", ["disable", "prefer", "require"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", id="HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="SSH"),
        pytest.param(b"J\0\0\0\n8.0.36\0", id="MySQL"),
        pytest.param(b"\0" * 64, id="zeros, in which asyncpg would turn for ever"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_another_server_on_the_port_is_named_as_such(answer: bytes, tls: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        found = await refused({"host": host, "port": port, "user": "u", "database": "d", "ssl": tls})
    assert found.reason in (Reason.POSTGRES_STALE, Reason.AUTH_FAILED)  # never down: nothing is known of it
    assert found.conclusive
    assert "is not PostgreSQL" in found.detail


@pytest.mark.parametrize("answer", [b"", b"S", b"N"], ids=["mute", "TLS then mute", "no TLS then mute"])
async def test_a_server_that_never_answers_costs_the_budget(answer: bytes) -> None:
    left = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        while await reader.read(1000):
            pass
        writer.close()
        left.set()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        found = await refused({"host": host, "port": port, "user": "u", "database": "d"}, budget=0.1)
        await asyncio.wait_for(left.wait(), 1)  # it saw us hang up
    assert (found.reason, found.conclusive) == (Reason.POSTGRES_STALE, False)


async def test_a_server_that_goes_mute_after_tls_is_left_at_once(tmp_path: Path) -> None:
    """A polite TLS close would wait 30 s for its answer, in one of its connection slots."""
    certificate = tmp_path / "both.pem"
    certificate.write_text(CERTIFICATE)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    left = asyncio.Event()

    class Mute(asyncio.Protocol):
        """Agrees to TLS by hand, so that nothing here answers a close_notify."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = tls.wrap_bio(self.incoming, self.outgoing, server_side=True)
            self.asked = False

        def data_received(self, data: bytes) -> None:
            if not self.asked:
                self.asked = True
                self.transport.write(b"S")
                return
            self.incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            self.transport.write(self.outgoing.read())

        def connection_lost(self, exc: Exception | None) -> None:
            left.set()

    async with await asyncio.get_running_loop().create_server(Mute, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        arguments = {"host": host, "port": port, "user": "u", "database": "d", "ssl": "require"}
        found = await refused(arguments, budget=0.2)
        await asyncio.wait_for(left.wait(), 1)
    assert (found.reason, found.conclusive) == (Reason.POSTGRES_STALE, False)


async def test_zeros_after_a_sound_message_do_not_stop_the_event_loop() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        for part in (b"R\0\0\0\x08", b"\0\0", b"\0\0", b"\0" * 20):  # authenticated, then nonsense
            writer.write(part)
            await asyncio.sleep(0)
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        found = await refused({"host": host, "port": port, "user": "u", "database": "d", "ssl": "disable"})
    assert (found.reason, found.conclusive) == (Reason.POSTGRES_STALE, True)


async def test_a_server_that_does_not_say_its_version() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")  # authenticated, ready for a query
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        found = await refused({"host": host, "port": port, "user": "u", "database": "d", "ssl": "disable"})
    assert (found.reason, found.conclusive) == (Reason.POSTGRES_STALE, True)
    assert "it did not say its server_version" in found.detail


REFUSED = OSError(111, "Connect call failed ('127.0.0.1', 5432)")


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        pytest.param(
            [OSError(111, "Connect call failed ('::1', 5432, 0, 0)"), REFUSED],
            Reason.POSTGRES_DOWN,
            id="all refuse",
        ),
        pytest.param(
            [OSError(99, "Cannot assign requested address"), REFUSED],
            Reason.POSTGRES_DOWN,
            id="no IPv6 here",
        ),
        pytest.param(
            [OSError(113, "No route to host"), REFUSED], Reason.POSTGRES_STALE, id="one is not reached"
        ),
        pytest.param(
            [OSError(99, "Cannot assign requested address")], Reason.POSTGRES_STALE, id="nobody refuses"
        ),
    ],
)
async def test_of_a_name_with_several_addresses(
    monkeypatch: pytest.MonkeyPatch, errors: list[OSError], reason: Reason
) -> None:
    """The server is down where all that can be asked refuse: `localhost` has two on most machines."""

    async def fail(*_args: object, **_more: object) -> None:
        # as asyncio says it of a name with several addresses (base_events.py, create_connection)
        raise OSError(f"Multiple exceptions: {', '.join(str(error) for error in errors)}")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fail)
    found = await refused({"host": "localhost", "port": 5432, "user": "u", "database": "d", "ssl": "disable"})
    assert found.reason is reason


async def test_a_missing_certificate_is_no_missing_server(tmp_path: Path) -> None:
    found = await refused(
        {"dsn": f"postgresql://u@localhost/d?sslmode=verify-full&sslrootcert={tmp_path}/none"}
    )
    assert found.reason is Reason.AUTH_FAILED


async def test_settings_that_cannot_be_used_are_not_quoted() -> None:
    found = await refused({"dsn": "postgresql://u:se/cret@localhost/d"})
    assert (found.reason, found.detail) == (
        Reason.AUTH_FAILED,
        "no session at PostgreSQL: the connection settings cannot be used",
    )
