"""What the bridge's own HTTP answers, to whom and in which format."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry, Gauge

from healthagent.config import Address
from healthagent.pgpool.server import BridgeServer, answer


@asynccontextmanager
async def bridge(*, ready: bool) -> AsyncIterator[int]:
    """A bridge's server, and its port."""
    registry = CollectorRegistry()
    Gauge("anything", "at all", registry=registry)
    server = BridgeServer(lambda: (ready, "why"), registry)
    listener = await server.listen(Address("127.0.0.1", 0))
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.close()


async def asked(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        whole = await reader.read()
        writer.close()
    head, _, body = whole.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    ("ready", "path", "status"),
    [
        pytest.param(True, "/ready", 200, id="ready"),
        pytest.param(False, "/ready", 503, id="not ready"),
        pytest.param(False, "/liveness", 200, id="alive"),
        pytest.param(False, "/metrics", 200, id="metrics"),
        pytest.param(True, "/primary", 404, id="a path of the agent"),
    ],
)
async def test_haproxys_httpchk_is_answered_as_get_is(ready: bool, path: str, status: int) -> None:
    """`option httpchk /ready` sends `OPTIONS /ready HTTP/1.0`, without a Host."""
    async with bridge(ready=ready) as port:
        got, headers, body = await asked(port, f"OPTIONS {path} HTTP/1.0\r\n\r\n".encode())
        plain, _, plain_body = await asked(port, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert (got, body, headers["content-length"]) == (status, b"", "0")
    assert headers["allow"] == "get, head, options"
    assert (plain, plain_body != b"") == (status, True)


async def test_other_methods_are_refused() -> None:
    async with bridge(ready=True) as port:
        got, headers, _ = await asked(port, b"POST /ready HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    assert (got, headers["allow"]) == (405, "get, head, options")


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        pytest.param("", False, id="no header"),
        pytest.param("application/openmetrics-text; version=1.0.0", True, id="Prometheus"),
        pytest.param("application/openmetrics-text; version=x", True, id="an unknown version"),
        pytest.param("text/plain; version=x", False, id="text of an unknown version"),
    ],
)
def test_no_accept_header_breaks_the_scrape(accept: str, openmetrics: bool) -> None:
    told = answer("/metrics", accept, lambda: (True, "why"), CollectorRegistry())
    assert (told.status, told.body.endswith(b"# EOF\n")) == (200, openmetrics)
    assert told.content_type.startswith("application/openmetrics-text" if openmetrics else "text/plain")
