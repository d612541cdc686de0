"""Asking a running agent over HTTP: what check, list, peers and maintenance share.

The standard library's client, not aiohttp: an exec probe starts this anew every few
seconds, and importing aiohttp would cost ten times what the question does.
"""

import http.client
import json
import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORT = 8008
BUDGET = 3.0  # seconds for one question
MAX_BODY = 4 << 20


class BadUrl(ValueError):
    """A URL that cannot be asked."""


class Unreachable(Exception):
    """No answer; the text says from where and why."""


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes

    @property
    def json(self) -> object:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def agent_url(given: str | None, config: str | None = None) -> str:
    """The agent to ask: --url, else the address in the configuration or the environment, else loopback."""
    if given is not None:
        return _checked(given)
    listen = os.environ.get("HEALTHAGENT_LISTEN")
    scheme = "http"
    if config is not None or "HEALTHAGENT_CONFIG" in os.environ:
        from healthagent.config import ConfigError, load  # only here: reading YAML takes longer than asking

        try:
            settings = load(config).settings
        except ConfigError as error:
            raise BadUrl(str(error)) from None
        listen, scheme = str(settings.listen), "https" if settings.tls.cert else "http"
    if not listen:
        return f"http://127.0.0.1:{DEFAULT_PORT}"
    host, _, port = listen.rpartition(":")
    if host in ("0.0.0.0", "", "*"):
        host = "127.0.0.1"
    elif host in ("::", "[::]"):
        host = "[::1]"
    return _checked(f"{scheme}://{host}:{port}")


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadUrl(f"--url: {error}, got {url!r}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadUrl(f"--url: want http://HOST:PORT or https://HOST:PORT, got {url!r}")
    if parts.path not in ("", "/") or parts.username is not None or port == 0:
        raise BadUrl(f"--url: want only a scheme, a host and a port, got {url!r}")
    return url.rstrip("/")


def ask(
    url: str, path: str, method: str = "GET", body: object = None, headers: dict[str, str] | None = None
) -> Reply:
    """One request, or Unreachable."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    if parts.scheme == "https":
        # the agent next door under any of its names: what is wanted is its answer, which is no secret
        context = ssl._create_unverified_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=BUDGET, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=BUDGET)
    payload = None if body is None else json.dumps(body)
    sent = {"Content-Type": "application/json"} if payload is not None else {}
    try:
        connection.request(method, path, payload, {**sent, **(headers or {})})
        response = connection.getresponse()
        return Reply(response.status, response.read(MAX_BODY))
    except (OSError, http.client.HTTPException, socket.gaierror) as error:
        raise Unreachable(f"{url}{path}: {error or type(error).__name__}") from None
    finally:
        connection.close()
