"""The quick lane: a plain check is answered in the protocol itself, everything else by aiohttp.

Load balancers ask thousands of times with a new connection each, always the same few bytes.
aiohttp spends four fifths of such an answer on a parser, a request, a task and a response of
its own. So the first bytes of a connection are held against one strict pattern: a complete
GET, HEAD or OPTIONS of a check, without a body. What matches is answered at once; whatever
does not (half a request, another path, a body, an upgrade, nonsense) goes, with all that was
read so far, to aiohttp's handler, which then owns the connection.
"""

import asyncio
import re
from collections.abc import Callable
from typing import cast

from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE
from aiohttp.web_protocol import RequestHandler

from healthagent.crowd import Connected, Crowd
from healthagent.server.answers import Answer

MOST_AT_ONCE = 16  # requests in one packet; no checker sends more than one, and aiohttp bounds what is more
LONGEST = 4096  # bytes: a check with all the headers that checkers send is a tenth of that
# RFC 9112: request line, field lines of token ":" value, empty line; nothing folded, nothing after it
_REQUEST = re.compile(
    rb"(GET|HEAD|OPTIONS) (/[!$&-;=@-Z_a-z~]*)(?:\?([!$-~]*))? HTTP/1\.([01])\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*)\r\n"
)
_SPECIAL = re.compile(
    rb"^(content-length|transfer-encoding|upgrade|expect|connection"
    rb"|x-haproxy-server-state|x-healthagent-sessions):"
    rb"[ \t]*(.*?)[ \t]*\r$",
    re.IGNORECASE | re.MULTILINE,
)
REASONS = {200: b"OK", 400: b"Bad Request", 503: b"Service Unavailable"}
_HOST = re.compile(rb"\nhost[ \t]*:", re.IGNORECASE)
SERVER = b"Server: " + SERVER_SOFTWARE.encode()

# (path, query, values of X-Haproxy-Server-State and X-Healthagent-Sessions, their sender):
# None when the path is not of this lane
Check = Callable[[str, str, tuple[str, str], str], Answer | None]


class Door(asyncio.Protocol):
    """Whoever connects: on the quick lane until a request is not plain."""

    def __init__(
        self,
        crowd: Crowd[Connected],
        check: Check,
        handler: Callable[[], RequestHandler],
        let_in: Callable[[asyncio.BaseTransport], bool],
    ) -> None:
        self._let_in = let_in
        self.transport: asyncio.Transport | None = None
        self._crowd = crowd
        self._check = check
        self._handler = handler
        self._read = b""
        self._unread = False  # the client does not read its answers
        self._tls = False
        self._answered = False
        crowd.expect(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._crowd.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.forget(self)
        self.transport = None

    def data_received(self, data: bytes) -> None:
        transport = self.transport
        if transport is None:
            return
        self._read += data
        for _ in range(MOST_AT_ONCE):
            if b"\r\n\r\n" not in self._read and len(self._read) <= LONGEST and self._read[:1].isupper():
                return  # half a request: the crowd's patience bounds how long it may take
            match = None if self._unread else _REQUEST.match(self._read, 0, LONGEST)
            if match is None or not self._answer(transport, *match.groups()):
                break
            self._read = self._read[match.end() :]
            if not self._read or transport.is_closing():
                return
        read, self._read = self._read, b""
        self._hand_over(transport, read)

    def _answer(
        self,
        transport: asyncio.Transport,
        method: bytes,
        path: bytes,
        query: bytes | None,
        minor: bytes,
        fields: bytes,
    ) -> bool:
        """Answer a plain check; False when it is none after all."""
        special = {name.lower(): value for name, value in _SPECIAL.findall(fields)}
        connection = special.pop(b"connection", b"").lower()
        state = special.pop(b"x-haproxy-server-state", b"").decode()
        sessions = special.pop(b"x-healthagent-sessions", b"").decode()
        if not self._let_in(transport) or special or connection not in (b"", b"close", b"keep-alive"):
            return False
        answer = self._check(path.decode(), (query or b"").decode(), (state, sessions), self._sender())
        if answer is None:
            return False
        self._crowd.served(self)
        self._answered = True
        # the state of TLS cannot be moved to a successor, a plain connection can
        leaving = self._tls and self._crowd.leaving
        close = leaving or connection == b"close" or (minor == b"0" and connection != b"keep-alive")
        transport.write(_spelled(answer, method, minor, close))
        if close:
            transport.close()
        return True

    def _hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Give the connection to aiohttp.

        HAProxy's HTTP/1.1 checks have no Host, and aiohttp refuses such requests: it gets one, and
        an order to close afterwards, since a second request could not be mended.
        """
        self._crowd.forget(self)
        line, end, rest = data.partition(b"\r\n")
        head = rest.partition(b"\r\n\r\n")[0]
        if line.endswith(b" HTTP/1.1") and not _HOST.search(b"\n" + head):
            data = line + end + b"Host: localhost\r\nConnection: close\r\n" + rest
        handler = self._handler()
        transport.set_protocol(handler)
        handler.connection_made(transport)
        if self._unread:
            handler.pause_writing()
            transport.resume_reading()  # it pauses by itself
        handler.data_received(data)

    def _sender(self) -> str:
        peer = self.transport.get_extra_info("peername") if self.transport else None
        return str(peer[0]) if isinstance(peer, tuple) else ""

    # Another process takes over.

    @property
    def busy(self) -> bool:
        transport = self.transport
        if transport is None:
            return False
        asked = self._tls and (bool(self._read) or not self._answered)
        return asked or transport.get_write_buffer_size() > 0

    def unanswered(self) -> tuple[int, bytes] | None:
        transport = self.transport
        if transport is None or transport.is_closing() or self._tls or self.busy:
            return None
        return transport.get_extra_info("socket").fileno(), self._read

    # A client that asks and does not read must not make us hold its answers.

    def pause_writing(self) -> None:
        self._unread = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._unread = False
        if self.transport is not None:
            self.transport.resume_reading()


def _spelled(answer: Answer, method: bytes, minor: bytes, close: bool) -> bytes:
    """The same headers, in the same order, as aiohttp's lane sends."""
    options = method == b"OPTIONS"
    lines = [
        b"HTTP/1.%s %d %s" % (minor, answer.status, REASONS[answer.status]),
        b"Content-Type: " + answer.content_type.encode(),
        b"Cache-Control: no-store",
    ]
    if answer.reason is not None:
        lines.append(b"X-Healthagent-Reason: " + answer.reason.encode())
    if options:
        lines.append(b"Allow: GET, HEAD, OPTIONS")
    lines.append(b"Content-Length: %d" % (0 if options else len(answer.body)))
    lines.append(b"Date: " + rfc822_formatted_time().encode())
    lines.append(SERVER)
    if close and minor == b"1":
        lines.append(b"Connection: close")
    elif minor == b"0" and not close:
        lines.append(b"Connection: keep-alive")
    return b"\r\n".join([*lines, b"", answer.body if method == b"GET" else b""])
