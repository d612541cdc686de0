"""The bridge's own HTTP: /ready for whatever stands before pgpool, /liveness, /metrics."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from aiohttp import web
from prometheus_client import CollectorRegistry

from healthagent.config import Address
from healthagent.crowd import Connected, Crowd
from healthagent.exposition import rendered
from healthagent.server.limits import BoundedServer, Connection, raise_file_limit

PATHS = ("/liveness", "/metrics", "/ready")
METHODS = ("GET", "HEAD", "OPTIONS")
ALLOW = {"Allow": ", ".join(METHODS)}


@dataclass(frozen=True, slots=True)
class Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


def answer(
    path: str, accept: str, ready: Callable[[], tuple[bool, str]], registry: CollectorRegistry
) -> Answer:
    """What a question for `path` is answered."""
    match path.rstrip("/"):
        case "/liveness":
            return Answer(HTTPStatus.OK, b"alive\n", "text/plain")
        case "/ready":
            ok, detail = ready()
            body = json.dumps({"ready": ok, "detail": detail}).encode()
            return Answer(HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE, body)
        case "/metrics":
            return Answer(HTTPStatus.OK, *rendered(registry, accept))
    return Answer(HTTPStatus.NOT_FOUND, json.dumps({"paths": PATHS}).encode())


class BridgeServer:
    """Answers from memory until closed."""

    def __init__(self, ready: Callable[[], tuple[bool, str]], registry: CollectorRegistry) -> None:
        self._ready = ready
        self._registry = registry
        loop = asyncio.get_running_loop()
        self._crowd: Crowd[Connected] = Crowd(raise_file_limit(), loop)
        self._server = BoundedServer(self._handle, self._crowd)

    async def listen(self, address: Address) -> asyncio.Server:
        """Raises OSError when the address cannot be had."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._server, address.host, address.port)

    async def reap(self) -> None:
        """Drop clients that dawdle, for ever."""
        await self._crowd.reap()

    async def close(self) -> None:
        await self._server.shutdown(0.5)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._crowd.served(cast(Connection, request.protocol))
        if request.method not in METHODS:
            return web.Response(status=HTTPStatus.METHOD_NOT_ALLOWED, headers=ALLOW)
        told = answer(request.path, request.headers.get("Accept", ""), self._ready, self._registry)
        headers = {"Content-Type": told.content_type, "Cache-Control": "no-store"}
        if request.method == "OPTIONS":  # what HAProxy's `option httpchk /ready` asks with
            return web.Response(status=told.status, body=b"", headers=headers | ALLOW)
        return web.Response(status=told.status, body=told.body, headers=headers)
