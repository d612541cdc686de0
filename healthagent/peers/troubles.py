"""What keeps the peers from being asked: one log line when it begins, and one when it is over.

A peer that answers every other question must not fill the log: its trouble is over when it
has answered for a while, and another cause is worth a line only when the last one is old.
"""

import logging
import os
import socket
import ssl
from dataclasses import dataclass

import aiohttp

from healthagent.core.model import Instant

CALM = 10.0  # seconds

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Trouble:
    url: str
    cause: str
    told_at: Instant
    failed_at: Instant


class Troubles:
    """The present trouble with each peer."""

    def __init__(self) -> None:
        self._known: dict[str, _Trouble] = {}

    def failed(self, entry: str, url: str, cause: str, now: Instant) -> None:
        """Note that a peer could not be asked, and why."""
        known = self._known.get(entry)
        if known is None or (known.cause != cause and now - known.told_at >= CALM):
            log.warning("peer %s: %s: %s", entry, url, cause)
            self._known[entry] = _Trouble(url, cause, now, now)
        else:
            known.failed_at, known.url = now, url

    def answered(self, entry: str, now: Instant) -> None:
        """Note that a peer was asked and answered."""
        known = self._known.get(entry)
        if known is not None and now - known.failed_at >= CALM:
            del self._known[entry]
            log.info("peer %s: answers again", entry)

    def cause(self, entry: str) -> str | None:
        """Why this peer cannot be asked at present."""
        known = self._known.get(entry)
        return None if known is None else f"{known.url}: {known.cause}"

    def forget(self, entry: str) -> None:
        """This entry is not asked any more."""
        self._known.pop(entry, None)


def cause_of(error: Exception, timeout: float) -> str:
    """Why a call failed, in words that are the same each time; nothing that the other side sent."""
    match error:
        case TimeoutError():
            return f"no answer within {timeout:g} s"
        case aiohttp.ClientConnectorDNSError():
            return "its name does not resolve"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as why):
            return f"its certificate is refused: {why.verify_message}"
        case aiohttp.ClientConnectorError(os_error=ssl.SSLError() as why):
            return f"no TLS with it: {why.reason or 'the handshake failed'}"
        case aiohttp.ClientConnectorError(os_error=cause):
            return _spelled(cause, "cannot be connected to")
        case ssl.SSLError(reason=why):
            return f"no TLS with it: {why or 'the connection broke'}"
        case aiohttp.ServerDisconnectedError():
            return "it hung up instead of answering"
        case aiohttp.ClientPayloadError():
            return "it hung up amid its answer"
        case socket.gaierror():
            return "its name does not resolve"
        case OSError():
            return _spelled(error, "the connection broke")
        case _:
            return "cannot be asked"


def _spelled(error: OSError, otherwise: str) -> str:
    """The system's words: asyncio puts addresses into its own, and all of them when several were tried."""
    return otherwise if error.errno is None else os.strerror(error.errno)
