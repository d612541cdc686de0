"""What reads the words of others. A target takes one input and raises only when it is a bug.

Each lets through the errors that are documented for what it calls, and nothing else.
"""

import asyncio
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from aiohttp.web_protocol import RequestHandler
from hypothesis import strategies as st

from healthagent.board import Board
from healthagent.config import ConfigError, example, load
from healthagent.core.model import LagLimit
from healthagent.core.peer import Peer, Statement
from healthagent.crowd import Connected, Crowd
from healthagent.events import Events
from healthagent.metrics import Metrics, Sources
from healthagent.peers.patroni import statement_from
from healthagent.pgpool.pcp import Connection, PcpError
from healthagent.server.answers import Answer, Answers
from healthagent.server.events import events_answer
from healthagent.server.lane import LONGEST, MOST_AT_ONCE, Door
from healthagent.server.query import BadQuery, parse_query
from healthagent.wire import Misunderstood, decode, encode, statement_of
from tests.bed.boards import PRIMARY, START, Clock, board, replica, says
from tests.bed.pcp_server import frame
from tests.fuzz.inputs import Talk, framed, nearly, nearly_frames, nearly_json, queries

LOOP = asyncio.new_event_loop()  # for its clock; it never runs
NOW = START + 0.3
QUERY = "lag=16MB&mode=write&replication_state=streaming&tag_zone=az1&since=3&limit=10"


def said(*sentences: str) -> None:
    """An operator can read them, and each is one line."""
    assert sentences
    assert all(sentence.isprintable() for sentence in sentences), sentences


# The peer wire.


def heard(statement: Statement) -> None:
    """Take the statement in beside each kind of own PostgreSQL, and ask for everything that is said then."""
    for own in (PRIMARY, replica(behind=10, late=1.0), None):
        made = board(own, peers=(Peer("pg2"), Peer("pg3")))
        made.hear("pg3", says("pg3", replica()), START)
        made.hear("pg2", statement, NOW)
        made.end_call("pg2", START, NOW)
        everything_said(made)


def everything_said(made: Board) -> None:
    answers = answering(made)
    for path in answers.paths():
        answer = answers.answer(path, "", NOW)
        assert answer is not None
        json.loads(answer.body)
    assert decode(encode(made.describe(NOW))).name == "pg1"
    Metrics(made, Clock(NOW), Sources()).render(None)


def answering(made: Board) -> Answers:
    answers = Answers(made)
    answers.asked["/events"] = events_answer(made, Events())
    return answers


def peer_wire(body: bytes) -> None:
    """A peer's message is understood or Misunderstood, and what is understood unsettles nobody."""
    try:
        message = decode(body)
    except Misunderstood:
        return
    heard(statement_of(message, START, NOW))


def patroni_wire(body: bytes) -> None:
    """The same of what a plain Patroni node says."""
    with suppress(Misunderstood):
        heard(statement_from(body, "pg2", START, NOW))


# HTTP.


class Line(asyncio.Transport):
    """The far end of a connection: keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.9", 4711)})
        self.written = b""
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Rest(asyncio.Protocol):
    """Whoever gets what is not for the quick lane."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


def talked(pieces: Sequence[bytes]) -> tuple[bytes, bytes | None]:
    """What the quick lane answers, and what it hands over (None: nothing)."""
    crowd: Crowd[Connected] = Crowd(10, LOOP)
    answers = answering(board(PRIMARY))

    def check(path: str, query: str, _haproxy: tuple[str, str], _sender: str) -> Answer | None:
        return answers.answer(path, query, NOW)

    rest = Rest()
    handler = cast(RequestHandler, rest)  # only what any Protocol has is used
    door = Door(crowd, check, lambda: handler, lambda _transport: True)
    line = Line()
    door.connection_made(line)
    for piece in pieces:
        if line.closing:
            break
        receiver = getattr(line, "protocol", door)
        receiver.data_received(piece)
    handed_over = rest.data if hasattr(line, "protocol") else None
    door.connection_lost(None)
    return re.sub(rb"Date: [^\r]*", b"Date:", line.written), handed_over


STATUS = re.compile(rb"HTTP/1\.[01] (200|400|503) ")


def http_lane(sent: tuple[bytes, int]) -> None:
    """Any bytes are answered, waited for or handed over, however they are cut into packets."""
    data, pieces = sent
    whole = talked([data])
    assert not whole[0] or STATUS.match(whole[0]), whole[0][:80]
    if len(data) > LONGEST or data.count(b"\r\n\r\n") >= MOST_AT_ONCE:
        return
    size = max(1, len(data) // pieces)
    assert talked([data[at : at + size] for at in range(0, len(data), size)])[0] == whole[0]


def query_string(data: bytes) -> None:
    """Any query is read or refused with a sentence; a limit is a number that can be compared with."""
    text = data.decode("latin-1")
    answers = answering(board(replica(behind=10, late=1.0)))
    for path in ("/replica", "/readiness", "/events"):
        answer = answers.answer(path, text, NOW)
        assert answer is not None
        assert answer.status in (200, 400, 503)
    try:
        limit = parse_query(text).limit
    except BadQuery as error:
        said(str(error))
        return
    assert limit == LagLimit(limit.lag_bytes, limit.lag_seconds)
    assert min(limit.lag_bytes or 0, limit.lag_seconds or 0) >= 0


# Files and pgpool.


def configuration(data: bytes) -> None:
    """Any file is a configuration or a list of problems, each one line."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "agent.yaml")
        file.write_bytes(data)
        file.chmod(0o600)
        try:
            load(file, environment={})
        except ConfigError as error:
            said(*error.problems)


class Deaf:
    """The writing half of a connection to a pgpool that only talks."""

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass


def pcp(data: bytes) -> None:
    """pgpool may send anything: it is understood, PcpError, or the end of the stream."""

    async def talk() -> None:
        for ask in (Connection.node_count, Connection.settings, one_backend, one_node, login):
            reader = asyncio.StreamReader()
            reader.feed_data(data)
            reader.feed_eof()
            with suppress(PcpError, asyncio.IncompleteReadError):
                await ask(Connection(reader, cast(asyncio.StreamWriter, Deaf())))

    asyncio.run(talk())


async def one_backend(connection: Connection) -> None:
    await connection.backend(0)


async def one_node(connection: Connection) -> None:
    await connection.node_info(0)


async def login(connection: Connection) -> None:
    await connection.login("pcp", "secret")


# The table.


@dataclass(frozen=True)
class Target:
    """Something that reads, and what it is given."""

    name: str
    read: Callable[[Any], None]
    inputs: st.SearchStrategy[Any]


def _messages() -> list[bytes]:
    told = board(PRIMARY, name="pg2", peers=(Peer("pg1"),))
    told.hear("pg1", says("pg1", replica()), START)
    return [encode(told.describe(START)), encode(board(replica(), name="pg2").describe(START))]


PATRONI = (
    b'{"state": "running", "role": "primary", "server_version": 150018, "xlog": {"location": 67108960},'
    b' "timeline": 3, "database_system_identifier": "7710718678868212726",'
    b' "patroni": {"version": "4.1.5", "scope": "main", "name": "pg2"}}'
)
REQUEST = (
    f"GET /replica?{QUERY} HTTP/1.1\r\nHost: pg1\r\nX-Haproxy-Server-State: UP; name=a/b\r\n\r\n".encode()
)
BARE = b"OPTIONS /primary HTTP/1.0\r\n\r\n"
CONFIGURATION = b"""\
name: pg1
cluster: main
listen: "[::1]:8008"
state_dir: null
postgres: {dsn: "host=/run/postgresql user=me", address: "db:6432", interval: 250ms}
peers:
  - {name: pg2, url: "http://10.0.0.12:8008", dsn: "postgresql://me@10.0.0.12/postgres"}
  - {name: w1, url: "http://10.0.0.21:8008", witness: true}
replica: {max_lag: 16MB, max_lag_time: 2h, require_primary: true}
tags: {noloadbalance: true, zone: "no", weight: 5, share: 0.5}
fence: {command: [/usr/bin/fence, "a b"], "on": [isolated]}
"""
AS_JSON = json.dumps(yaml.safe_load(CONFIGURATION)).encode()  # which is YAML too
DONE = (b"CommandComplete",)
NODE = b"NodeInfo db 5432 2 0 up 1 2 primary 168 streaming async 1795300898".split()
ONE = (b"i", (b"ArraySize", b"1"))
TALKS: list[Talk] = [
    [(b"l", (*DONE, b"2"))],
    [(b"h", b"CommandComplete 0 127.0.0.1 5432 up primary 2026-11-21 193".split())],
    [ONE, (b"i", NODE), (b"i", DONE)],
    [(b"N", (b"S",)), ONE, (b"i", [*NODE[:9], b"1", *NODE[9:]]), (b"i", DONE)],
    [(b"b", (b"ArraySize", b"\0\0\0")), (b"b", (b"ProcessConfig", b"a", b"b", b"c")), (b"b", DONE)],
    [(b"E", (b"SERROR", b"Mno", b"Dbecause", b""))],
]
LOGGED_IN = frame("m", raw=b"salt") + frame("r", "AuthenticationOK")

TARGETS = [
    Target("peer wire", peer_wire, nearly_json(*_messages())),
    Target("Patroni's JSON", patroni_wire, nearly_json(PATRONI)),
    Target("HTTP lane", http_lane, st.tuples(nearly(REQUEST, BARE, REQUEST + BARE), st.integers(1, 30))),
    Target("query", query_string, queries() | nearly(QUERY.encode(), b"lag=5s", b"lag=0x10kB", b"limit=5")),
    Target("configuration", configuration, nearly_json(AS_JSON) | nearly(CONFIGURATION, example().encode())),
    Target("PCP", pcp, nearly_frames(*TALKS) | nearly(LOGGED_IN, *(framed(talk) for talk in TALKS))),
]
