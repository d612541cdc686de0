"""What each proxy of a parsed configuration really does, inheritance resolved.

A setting of a proxy is its own, else that of its `defaults`. Server settings pile up: the
`default-server` lines of the defaults, those of the proxy above the server's line, then its own.
Source: HAProxy's configuration.txt, chapters 4 and 5.2.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from healthagent.haproxy.syntax import PROXIES, Line, Section

_CHECK_WORDS = """
    httpchk pgsql-check tcp-check mysql-check smtpchk ldap-check redis-check ssl-hello-chk
    external-check spop-check
"""
CHECKS = frozenset(_CHECK_WORDS.split())
# Server keywords that take a value: a value must never be read as a keyword. From the tables
# srv_kws in server.c, check.c and ssl_sock.c.
_VALUED_WORDS = """
    addr agent-addr agent-inter agent-port agent-send alpn ca-file cert check-alpn check-pool-conn-name
    check-proto check-sni ciphers ciphersuites client-sigalgs cookie crl-file crt curves downinter
    error-limit fall fastinter guid hash-key healthcheck id init-addr init-state inter log-bufsize
    log-proto max-reuse maxconn maxqueue minconn namespace npn observe on-error on-marked-down
    on-marked-up pool-conn-name pool-low-conn pool-max-conn pool-purge-delay port proto
    proxy-v2-options redir resolve-net resolve-opts resolve-prefer resolvers rise
    set-proxy-v2-tlv-fmt shard sigalgs slowstart sni socks4 source ssl-max-ver ssl-min-ver tcp-ut
    track usesrc verify verifyhost weight ws
"""
_VALUED = frozenset(_VALUED_WORDS.split())
MOST_RULES = 500
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SEND_ARITY = {"meth": 1, "uri": 1, "uri-lf": 1, "ver": 1, "hdr": 2, "body": 1, "body-lf": 1, "comment": 1}


@dataclass(frozen=True)
class Server:
    """One `server` or `server-template` line with all that it inherits."""

    name: str
    line: int
    port: int | None  # None: unknown, or none given
    count: int  # how many servers the line stands for
    settings: dict[str, str]  # keyword to value; "" for keywords without one
    template: bool

    def seconds(self, keyword: str, default: float | None = None) -> float | None:
        """Return a duration in seconds; None when it cannot be known here."""
        return duration(self.settings[keyword]) if keyword in self.settings else default

    def number(self, keyword: str, default: int) -> int | None:
        """Return a whole number; None when it cannot be known here."""
        if keyword not in self.settings:
            return default
        text = self.settings[keyword]
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


@dataclass(frozen=True)
class HttpCheck:
    """The request that `option httpchk` and `http-check send` make together."""

    line: Line
    paths: tuple[str, ...]
    ports: tuple[str, ...]  # of `http-check connect`
    log_format: bool  # the path is built from variables, such as %[srv_name]


@dataclass
class Proxy:
    """A frontend, backend or listen section."""

    section: Section
    servers: list[Server] = field(default_factory=list)

    @cached_property
    def name(self) -> str:
        """The name that rules use."""
        return self.section.name

    @property
    def takes_clients(self) -> bool:
        """Whether clients connect to it."""
        return self.section.kind != "backend"

    @property
    def has_servers(self) -> bool:
        """Whether it may send traffic to servers."""
        return self.section.kind != "frontend"

    @cached_property
    def server_count(self) -> int:
        """How many servers its lines stand for."""
        return sum(server.count for server in self.servers)

    def last(self, *start: str) -> Line | None:
        """Return the line that begins with these one or two words: the proxy's last, else its defaults' last.

        `no option x` cancels what was inherited.
        """
        for section in self.section.own_and_inherited():
            lines = section.by_start.get(start)
            if lines:
                return None if lines[-1].starts("no") else lines[-1]
        return None

    def lines(self, *start: str) -> list[Line]:
        """Return the lines that begin so: the proxy's own, or if it has none, the inherited ones.

        At most the first 500: each of many proxies may inherit them all.
        """
        for section in self.section.own_and_inherited():
            found = section.by_start.get(start)
            if found:
                return found[:MOST_RULES]
        return []

    def timeout(self, event: str) -> float | None:
        """Return `timeout EVENT` in seconds; None when it is not set or cannot be known."""
        line = self.last("timeout", event)
        return duration(line.words[2]) if line is not None and len(line.words) > 2 else None

    @cached_property
    def mode(self) -> str:
        """`tcp` unless said otherwise."""
        line = self.last("mode")
        return line.words[1] if line is not None and len(line.words) > 1 else "tcp"

    @cached_property
    def check(self) -> Line | None:
        """The `option` line that decides the kind of health check, or None for a plain connect."""
        for section in self.section.own_and_inherited():
            options = section.by_start.get(("option",), [])
            kinds = [line for line in options if CHECKS.intersection(line.words[1:3])]
            if kinds:
                return None if kinds[-1].starts("no") else kinds[-1]
        return None

    @cached_property
    def http_check(self) -> HttpCheck | None:
        """The HTTP check, or None if the check is of another kind."""
        if self.check is None or self.check.words[1] != "httpchk":
            return None
        words = self.check.words[2:]
        path = "/" if not words else words[0] if len(words) == 1 else words[1]
        sends = list(self._sends())
        paths = tuple(found for _, found in sends) or (path,)
        log_format = any(keyword == "uri-lf" for keyword, _ in sends)
        ports = tuple(
            line.words[index + 1]
            for line in self.lines("http-check", "connect")
            for index in range(2, len(line.words) - 1)
            if line.words[index] == "port"
        )
        return HttpCheck(self.check, paths, ports, log_format)

    def _sends(self) -> Iterator[tuple[str, str]]:
        for line in self.lines("http-check", "send"):
            index = 2
            while index < len(line.words) - 1:
                keyword = line.words[index]
                if keyword in ("uri", "uri-lf"):
                    yield keyword, line.words[index + 1]
                index += 1 + _SEND_ARITY.get(keyword, 0)


def proxies(sections: list[Section]) -> list[Proxy]:
    """Return every frontend, backend and listen with its servers."""
    shared: dict[int, dict[str, str]] = {}
    for section in sections:
        if section.kind == "defaults":  # before all that inherit from it
            inherited = shared.get(id(section.defaults), {})
            shared[id(section)] = _with_default_servers(section, inherited)
    return [
        Proxy(section, list(_servers(section, shared.get(id(section.defaults), {}))))
        for section in sections
        if section.kind in PROXIES
    ]


def duration(text: str) -> float | None:
    """Read HAProxy's time format, milliseconds without a unit; None if it is none."""
    match = re.fullmatch(r"([0-9]{1,15})(us|ms|s|m|h|d)?", text)
    return int(match[1]) * _UNITS[match[2] or "ms"] if match else None


def _with_default_servers(section: Section, inherited: dict[str, str]) -> dict[str, str]:
    settings = dict(inherited)
    for line in section.by_start.get(("default-server",), []):
        _apply(settings, line.words[1:])
    return settings


def _servers(section: Section, inherited: dict[str, str]) -> Iterator[Server]:
    settings = dict(inherited)
    for line in section.lines:
        if line.starts("default-server"):
            _apply(settings, line.words[1:])
        elif line.words[0] in ("server", "server-template") and len(line.words) > 2:
            yield _server(line, dict(settings))


def _server(line: Line, settings: dict[str, str]) -> Server:
    template = line.words[0] == "server-template"
    target, rest = (line.words[3:4], line.words[4:]) if template else (line.words[2:3], line.words[3:])
    _apply(settings, rest)
    port = target[0].rpartition(":")[2] if target and ":" in target[0] else ""
    return Server(
        line.words[1],
        line.number,
        int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else None,
        _template_count(line.words[2]) if template else 1,
        settings,
        template,
    )


def _template_count(text: str) -> int:
    low, _, high = text.rpartition("-")
    if not all(part.isascii() and part.isdigit() and len(part) < 6 for part in (low or "0", high)):
        return 2  # unknown, and nobody writes a template for one server
    return int(high) - int(low) + 1 if low else int(high)


def _apply(settings: dict[str, str], words: tuple[str, ...]) -> None:
    index = 0
    while index < len(words):
        keyword = words[index]
        if keyword in _VALUED:
            settings[keyword] = words[index + 1] if index + 1 < len(words) else ""
            index += 1
        elif keyword == "enabled":
            settings.pop("disabled", None)
        elif keyword.startswith("no-"):
            settings.pop(keyword[3:], None)
        else:
            settings[keyword] = ""
        index += 1
