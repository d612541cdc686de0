"""Asking a running agent over HTTP: what check, list, peers and maintenance share.

The standard library's client, not aiohttp: an exec probe starts this anew every few
seconds, and importing aiohttp would cost ten times what the question does.
"""

import http.client
import json
import os
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORT = 8008
NULLS = ("", "~", "null", "Null", "NULL")  # as the configuration reads a variable
BUDGET = 3.0  # seconds for one question, and as much again to connect
MAX_BODY = 4 << 20

# labels that a resolver takes; or an IPv6 address, of which urlsplit has taken the brackets
_HOST = re.compile(
    r"(?=.{1,253}$)([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|(?=.*:)[0-9A-Fa-f:.]+(%[\w.-]+)?"
)


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

    @property
    def refusal(self) -> str | None:
        """Why an agent did not answer the question, in its words; None when it did, or is no agent."""
        body = self.json
        error = body.get("error") if isinstance(body, dict) else None
        return f"it answered {self.status}: {printable(error)}" if isinstance(error, str) else None


def agent_url(given: str | None, config: str | None = None) -> str:
    """The agent to ask: --url, else the address in the configuration or the environment, else loopback."""
    if given is not None:
        return _checked(given)
    if config is not None or "HEALTHAGENT_CONFIG" in os.environ:
        # only here: reading YAML takes longer than asking
        from healthagent.config import ConfigError, where_it_answers

        try:
            listening, tls = where_it_answers(config)
        except ConfigError as error:
            raise BadUrl(str(error)) from None
        listen = str(listening)
    else:
        listen = os.environ.get("HEALTHAGENT_LISTEN") or f"0.0.0.0:{DEFAULT_PORT}"
        tls = os.environ.get("HEALTHAGENT_TLS_CERT", "").strip() not in NULLS
    host, _, port = listen.rpartition(":")
    if host in ("0.0.0.0", "", "*"):
        host = "127.0.0.1"
    elif host in ("::", "[::]"):
        host = "[::1]"
    try:
        return _checked(f"{'https' if tls else 'http'}://{host}:{port}")
    except BadUrl:
        raise BadUrl(f"listen: nobody can be asked at {listen!r}: want HOST:PORT, or use --url") from None


def _checked(url: str) -> str:
    want = "--url: want http://HOST:PORT or https://HOST:PORT"
    if "@" in url:
        raise BadUrl(f"{want}, without a user and password")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadUrl(f"{want} ({error}), got {url!r}") from None
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or port == 0:
        raise BadUrl(f"{want}, got {url!r}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadUrl(f"{want}, and nothing after it, got {url!r}")
    return url.rstrip("/")


def printable(value: object) -> str:
    """As text that does not drive a terminal: what an agent says may come from anywhere."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


def ask(
    url: str,
    path: str,
    method: str = "GET",
    body: object = None,
    headers: dict[str, str] | None = None,
    ca: str | None = None,
) -> Reply:
    """One request, or Unreachable. With an Authorization the server must prove itself, to `ca` if given."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    if parts.scheme == "https":
        try:
            context = _context("Authorization" in (headers or {}), ca)
        except OSError as error:
            raise BadUrl(f"--ca: {ca}: {error.strerror or 'no certificate'}") from None
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=BUDGET, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=BUDGET)
    payload = None if body is None else json.dumps(body)
    sent = {"Content-Type": "application/json"} if payload is not None else {}
    try:
        connection.connect()
        # a time-out of the socket begins anew with each byte; this one does not
        limit = threading.Timer(BUDGET, _hang_up, [connection.sock])
        limit.start()
        try:
            connection.request(method, path, payload, {**sent, **(headers or {})})
            response = connection.getresponse()
            reply = Reply(response.status, response.read(MAX_BODY))
        finally:
            limit.cancel()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}{path}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if response.length:
        raise Unreachable(f"{url}{path}: the answer ended early, or is longer than {MAX_BODY >> 20} MB")
    return reply


def _context(verified: bool, ca: str | None) -> ssl.SSLContext:
    if verified:
        return ssl.create_default_context(cafile=ca)  # a token is for its agent only
    # the agent next door under any of its names: what is wanted is its answer, which is no secret
    return ssl._create_unverified_context()


def _hang_up(connection: socket.socket) -> None:
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which would talk first
    except OSError:
        return  # it has ended by itself
