"""PCP, pgpool's control protocol: what pgpool thinks of its backends, and how to change its mind.

A frame is one byte of type, a big-endian int32 length that counts itself, and a body of NUL-ended
strings. Source: src/pcp_con/pcp_worker.c and src/libs/pcp/pcp.c of pgpool 4.2 to 4.7.

    ask  M                        answer  m  4 bytes of salt
         R user, hash                     r  AuthenticationOK
         L                                l  CommandComplete, count
         H index                          h  CommandComplete, index, host, port, status, role, ...
         I index                          i  ArraySize, 1; NodeInfo, 12 fields (13 from 4.4); CommandComplete
         B                                b  ArraySize, int32; ProcessConfig, name, value, text; ...
         D index, C index                 d, c  CommandComplete
         J "index ", "n"                  d  CommandComplete
    any of them                           N notices, then the answer or E: letter and text of each field

I opens a session to the server that it describes, and so waits out pgpool's connect_timeout (10 s) when
that hangs; H reads shared memory only, but makes pgpool log a line for each of its backends.
An answer to D, C or J says that the request was accepted, not that it was carried out.
"""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from healthagent.core.model import Role
from healthagent.pgpool.model import Backend, Kind, LiveInfo, Status

FRAME_LIMIT = 8192  # bytes; the longest true body, one setting with its explanation, is below 700
BACKENDS_LIMIT = 128  # MAX_NUM_BACKENDS
SETTINGS_LIMIT = 2048  # about 150, and 7 for each backend
NOTICES_LIMIT = 64

ACTIONS = {
    Kind.DETACH: (b"D", "{}\0", b"d"),
    Kind.ATTACH: (b"C", "{}\0", b"c"),
    Kind.PROMOTE: (b"J", "{} \0n\0", b"d"),
}
STATUSES = {"0": Status.UNUSED, "1": Status.WAITING, "2": Status.UP, "3": Status.DOWN}
PRIMARY = "2"  # of main, replica, primary, standby
LIVE_ROLES = {"primary": Role.PRIMARY, "standby": Role.REPLICA}


class PcpError(Exception):
    """pgpool could not be asked, or its answer makes no sense. The text is a sentence without secrets."""


class PcpSilent(PcpError):
    """pgpool did not answer within the budget."""


class PcpRefused(PcpError):
    """pgpool understood and said no; the text is pgpool's own."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where pgpool's PCP listens, and who asks. With `socket_dir` the Unix socket there, else TCP."""

    host: str = "localhost"
    port: int = 9898
    socket_dir: Path | None = None
    user: str = "pcp"
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.socket_dir is None else str(self.socket)

    @property
    def socket(self) -> Path:
        return (self.socket_dir or Path()) / f".s.PGSQL.{self.port}"


class Connection:
    """One logged-in PCP connection. Its requests raise PcpError; after a PcpRefused it may be used on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def login(self, user: str, password: str) -> None:
        """Answer pgpool's MD5 challenge."""
        salt = await self._ask(b"M", b"", b"m")
        if len(salt) != 4:
            raise PcpError(f"pgpool sent a salt of {len(salt)} bytes instead of 4")
        inner = md5_hex(md5_hex(password.encode()) + user.encode())
        answer = await self._ask(b"R", user.encode() + b"\0" + md5_hex(inner + salt) + b"\0", b"r")
        if strings(answer) != ["AuthenticationOK"]:
            raise PcpError(f"pgpool answered a login with {strings(answer)!r}")

    async def node_count(self) -> int:
        """How many backends are configured."""
        count = whole_number(completed(await self._ask(b"L", b"", b"l"), 1)[0])
        if count > BACKENDS_LIMIT:
            raise PcpError(
                f"pgpool says that it has {count} backends; it cannot have more than {BACKENDS_LIMIT}"
            )
        return count

    async def node_info(self, index: int) -> tuple[Backend, LiveInfo]:
        """What pgpool thinks of one backend, and what its PostgreSQL tells pgpool now."""
        size = strings(await self._ask(b"I", f"{index}\0".encode(), b"i"))
        if size != ["ArraySize", "1"]:
            raise PcpError(f"pgpool announced {size!r} when asked for one backend")
        info = strings(await self._frame(b"i"))
        if info[:1] != ["NodeInfo"]:
            raise PcpError(f"pgpool described a backend with {info!r}")
        completed(await self._frame(b"i"), 0)
        return parse_node_info(index, info[1:])

    async def backend(self, index: int) -> Backend:
        """What pgpool thinks of one backend; never waits for PostgreSQL."""
        words = completed(await self._ask(b"H", f"{index}\0".encode(), b"h"), 5)
        if whole_number(words[0]) != index:
            raise PcpError(f"pgpool was asked for backend {index} and described backend {words[0]!r}")
        try:
            status = Status(words[3])
        except ValueError:
            raise PcpError(f"pgpool gave backend {index} an unknown status, {words[3]!r}") from None
        return Backend(index, words[1], whole_number(words[2]), status, words[4] == "primary")

    async def settings(self) -> dict[str, str]:
        """pgpool's settings as they are in force (not what its file says)."""
        size = await self._ask(b"B", b"", b"b")
        if len(size) != 14 or not size.startswith(b"ArraySize\0"):
            raise PcpError(f"pgpool announced its settings with {size[:40]!r}")
        settings: dict[str, str] = {}
        while (row := strings(await self._frame(b"b"))) != ["CommandComplete"]:
            if len(row) < 3 or row[0] != "ProcessConfig" or len(settings) >= SETTINGS_LIMIT:
                raise PcpError(f"pgpool listed its settings wrongly, at number {len(settings)}: {row!r:.80}")
            settings[row[1]] = row[2]
        return settings

    def request(self, kind: Kind, index: int) -> None:
        """Ask for a change; `outcome` must be awaited once for each, in the same order.

        What pgpool finds waiting together it carries out together. A request that comes 5 ms later waits
        a second, until pgpool has restarted its PCP process.
        """
        request, body, _ = ACTIONS[kind]
        self._writer.write(frame(request, body.format(index).encode()))

    async def outcome(self, kind: Kind) -> str | None:
        """None when pgpool accepted the request, else its words; `backend` tells whether it was done."""
        try:
            completed(await self._frame(ACTIONS[kind][2]), 0)
        except PcpRefused as refusal:
            return str(refusal)
        return None

    def close(self) -> None:
        """Say goodbye, or pgpool logs an error for each of our connections; never waits."""
        if not self._writer.is_closing():
            self._writer.write(frame(b"X"))
        if self._writer.transport.get_write_buffer_size():
            self._writer.transport.abort()
        self._writer.close()

    async def _ask(self, request: bytes, body: bytes, answer: bytes) -> bytes:
        self._writer.write(frame(request, body))
        await self._writer.drain()
        return await self._frame(answer)

    async def _frame(self, expected: bytes) -> bytes:
        """The body of the next frame that is no notice; it must be of the expected type."""
        for _ in range(NOTICES_LIMIT):
            head = await self._reader.readexactly(5)
            kind, length = head[:1], struct.unpack("!i", head[1:])[0] - 4
            if not 0 <= length <= FRAME_LIMIT:
                raise PcpError(f"pgpool announced a frame of {length} bytes (the limit is {FRAME_LIMIT})")
            body = await self._reader.readexactly(length)
            if kind == b"E":
                raise PcpRefused(error_text(body))
            if kind == expected:
                return body
            if kind != b"N":
                raise PcpError(f"pgpool sent a frame of type {kind!r} where {expected!r} was expected")
        raise PcpError(f"pgpool sent {NOTICES_LIMIT} notices and no answer")


@asynccontextmanager
async def connect(endpoint: Endpoint, budget: float) -> AsyncIterator[Connection]:
    """A logged-in connection for at most `budget` seconds, its use included. Raises PcpError."""
    connection: Connection | None = None
    try:
        async with asyncio.timeout(budget):
            if endpoint.socket_dir is None:
                opened = await asyncio.open_connection(endpoint.host, endpoint.port)
            else:
                opened = await asyncio.open_unix_connection(endpoint.socket)
            connection = Connection(*opened)
            await connection.login(endpoint.user, endpoint.password)
            yield connection
    except TimeoutError:
        raise PcpSilent(f"{endpoint}: pgpool did not answer within {budget:g} s") from None
    except asyncio.IncompleteReadError:
        raise PcpError(f"{endpoint}: pgpool closed the connection before it had answered") from None
    except OSError as error:
        raise PcpError(f"{endpoint}: {error.strerror or error}") from None
    finally:
        if connection is not None:
            connection.close()


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """Spell one frame. pgpool drops the connection of a request of 260 bytes or more."""
    return kind + struct.pack("!i", len(body) + 4) + body


def strings(body: bytes) -> list[str]:
    """The NUL-ended strings of a body."""
    if not body.endswith(b"\0"):
        raise PcpError(f"pgpool sent a frame that is cut short: {body[-40:]!r}")
    return body[:-1].decode("utf-8", "replace").split("\0")


def completed(body: bytes, at_least: int) -> Sequence[str]:
    """The strings after CommandComplete."""
    words = strings(body)
    if words[0] != "CommandComplete" or len(words) <= at_least:
        raise PcpError(
            f"pgpool answered with {words!r:.80} where CommandComplete and {at_least} values were expected"
        )
    return words[1:]


def whole_number(text: str) -> int:
    """A non-negative number of at most 19 digits, as %d and %lu print one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise PcpError(f"pgpool sent {text!r:.40} where a number was expected")
    return int(text)


def parse_node_info(index: int, words: Sequence[str]) -> tuple[Backend, LiveInfo]:
    """Read the values of NodeInfo, which are these words in this order.

    host port status quarantine pg_status weight role pg_role [delay_by_time] delay repl_state sync_state
    changed. pgpool 4.4 put delay_by_time in; a delay by time is in microseconds. pg_status and
    pg_role are "unknown" while health_check_period or sr_check_period is 0.
    """
    if len(words) not in (12, 13):
        raise PcpError(
            f"pgpool described a backend with {len(words)} values; 12 (4.3) or 13 (4.4 and later) are known"
        )
    status = STATUSES.get(words[2])
    if status is None:
        raise PcpError(f"pgpool gave backend {index} an unknown status, {words[2]!r:.40}")
    if status is Status.DOWN and words[3] == "1":
        status = Status.QUARANTINE
    by_time = len(words) == 13 and words[8] == "1"
    delay = whole_number(words[-4])
    can_log_in = {"up": True, "down": False}.get(words[4])
    backend = Backend(index, words[0], whole_number(words[1]), status, words[6] == PRIMARY)
    return backend, LiveInfo(can_log_in, LIVE_ROLES.get(words[7]), delay / 1e6 if by_time else float(delay))


def error_text(body: bytes) -> str:
    """pgpool's message and detail, as one line."""
    parts = {word[:1]: word[1:] for word in body.decode("utf-8", "replace").split("\0") if word}
    text = ": ".join(parts[letter] for letter in "MD" if parts.get(letter))
    return " ".join(text.split())[:300] or "an error without a message"


def md5_hex(data: bytes) -> bytes:
    # The protocol knows nothing better; in FIPS mode MD5 is refused unless declared to protect nothing.
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()
