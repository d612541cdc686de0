"""Where PostgreSQL is, in libpq's own spelling.

libpq takes a URL or keywords (https://www.postgresql.org/docs/current/libpq-connect.html,
section 34.1.1); asyncpg takes only URLs, sends every parameter that it does not know to the
server as a setting, and fails there on such common ones as connect_timeout. So both forms are
read here into keywords, and asyncpg gets a URL of those that it understands.

What is left out (user, password, ports, TLS files) is asyncpg's to find in PG* variables,
the service file and the password file, as libpq would.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NotRequired, Required, TypedDict
from urllib.parse import quote, unquote

from healthagent.config.document import Flaw, Node, Rejected, Scalar
from healthagent.config.secret import HIDDEN, Secret
from healthagent.config.values import Schema, either, is_host, spell_text

_SECRET = ("password", "sslpassword")
_TAKEN = frozenset(
    {
        "host",
        "port",
        "dbname",
        "user",
        "password",
        "passfile",
        "service",
        "application_name",
        "options",
        "target_session_attrs",
        "sslmode",
        "sslnegotiation",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "sslcrl",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "krbsrvname",
        "gsslib",
    }
)
# What they ask of libpq is ruled here by the probe's wall budget, or is asyncpg's own affair.
_WITHOUT_EFFECT = frozenset(
    {
        "connect_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "client_encoding",
        "fallback_application_name",
        "sslcompression",
        "sslsni",
        "load_balance_hosts",
    }
)
_ONLY = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    # The evidence must be about this PostgreSQL, whatever its role.
    "target_session_attrs": ("any",),
    # asyncpg can do neither: to ignore a demand for it would be less security than was asked for.
    "gssencmode": ("disable", "prefer"),
    "channel_binding": ("disable", "prefer"),
}
_KNOWN = _TAKEN | _WITHOUT_EFFECT | _ONLY.keys()


class AsyncpgArguments(TypedDict):
    """Keyword arguments of asyncpg.connect."""

    dsn: Required[str]
    password: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Dsn:
    """One PostgreSQL and how to log in to it. Neither str() nor repr() shows a password."""

    keywords: tuple[tuple[str, str], ...]  # sorted, without the secrets
    password: Secret | None = None
    sslpassword: Secret | None = None

    def get(self, keyword: str) -> str | None:
        return dict(self.keywords).get(keyword)

    @property
    def redacted(self) -> str:
        """The URL as a person would write it, with *** for a password."""
        user, host = self.get("user") or "", self.get("host") or ""
        port, database = self.get("port"), self.get("dbname")
        login = quote(user, safe="") + (f":{HIDDEN}" if self.password else "")
        query = [(k, v) for k, v in self.keywords if k not in ("user", "host", "port", "dbname")]
        if host.startswith("/"):  # a socket's folder, readable only behind the question mark
            query.insert(0, ("host", host))
            host = ""
        if self.sslpassword:
            query.append(("sslpassword", HIDDEN))
        where = f"[{host}]" if ":" in host else host
        return (
            f"postgresql://{login}{'@' if login else ''}{where}{f':{port}' if port else ''}"
            f"/{quote(database or '', safe='')}{'?' if query else ''}{_query(query)}"
        )

    def __str__(self) -> str:
        return self.redacted

    def asyncpg_arguments(self) -> AsyncpgArguments:
        """Return what asyncpg.connect needs. It holds the passwords: never log it."""
        pairs = [(k, v) for k, v in self.keywords if k in _TAKEN and k != "target_session_attrs"]
        # asyncpg cuts a host at its first colon unless brackets say that it is an IPv6 address.
        pairs = [(k, f"[{v}]" if k == "host" and ":" in v else v) for k, v in pairs]
        if self.sslpassword:
            pairs.append(("sslpassword", self.sslpassword.reveal()))
        # All in the query: a path, even an empty one, would hide `dbname` from asyncpg.
        arguments = AsyncpgArguments(dsn=f"postgresql://{'?' if pairs else ''}{_query(pairs)}")
        if self.password:
            arguments["password"] = self.password.reveal()
        return arguments


def _query(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{key}={quote(value, safe='/*')}" for key, value in pairs)


class DsnText:
    """A DSN in either form; a refusal never repeats it, since it may hold a password."""

    __slots__ = ()

    def parse(self, node: Node) -> Dsn:
        if not isinstance(node, Scalar) or node.is_null:
            raise Rejected(Flaw(WANT, line=node.line))
        try:
            return parse_dsn(node.text)
        except ValueError as error:
            raise Rejected(Flaw(str(error), line=node.line)) from None

    def spell(self, value: Dsn) -> str:
        return spell_text(value.redacted)

    @property
    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


WANT = 'want postgresql://HOST/DATABASE or keywords such as "host=/run/postgresql dbname=postgres"'


def parse_dsn(text: str) -> Dsn:
    """Read a URL or libpq's keywords. Raises ValueError with the rule, never with the text."""
    scheme, colon, rest = text.strip().partition("://")
    if colon and re.fullmatch(r"[A-Za-z0-9+.-]+", scheme):
        if scheme not in ("postgresql", "postgres"):
            raise ValueError(f"{WANT}, not {scheme}://")
        given = _from_url(rest)
    elif "=" in text:
        given = _from_keywords(text)
    else:
        raise ValueError(WANT)
    given = {key: value for key, value in given.items() if value}  # libpq: empty is not given
    if not all(value.isprintable() for value in given.values()):
        raise ValueError("must hold printable characters only")
    _check(given)
    return Dsn(
        tuple(sorted((k, v) for k, v in given.items() if k not in _SECRET)),
        *(Secret(given[key]) if key in given else None for key in _SECRET),
    )


def _from_url(rest: str) -> dict[str, str]:
    """Split as libpq's conninfo_uri_parse_options does: the first @ before the path ends the login."""
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    login, at, hosts = authority.partition("@")
    if not at:
        login, hosts = "", authority
    if "@" in hosts:
        raise ValueError("an @ in a user name or password must be written as %40")
    user, _, password = login.partition(":")
    given = {"user": user, "password": password, "dbname": path}
    if hosts:
        match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\],]*)(?::(\d*))?", hosts)
        if match is None:
            raise ValueError(ONE_HOST if "," in hosts else "want HOST or HOST:PORT after the //")
        given |= {"host": match[1].strip("[]"), "port": match[2] or ""}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError("each parameter after the ? must be written as name=value")
        given[unquote(key)] = value
    if any(re.search(r"%(?![0-9A-Fa-f]{2})", value) for value in given.values()):
        raise ValueError("a % must be followed by two hexadecimal digits; the sign itself is %25")
    return {key: unquote(value) for key, value in given.items()}


_PAIR = re.compile(
    r"\s*(?P<key>[^\s='\\]+)\s*=\s*"
    r"(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<bare>(?:[^\s'\\]|\\.)*))(?=\s|$)",
    re.DOTALL,
)


def _from_keywords(text: str) -> dict[str, str]:
    """Split as libpq's conninfo_parse does: name = value, quotes and backslashes."""
    given: dict[str, str] = {}
    end = 0
    text = text.rstrip()
    while end < len(text):
        match = _PAIR.match(text, end)
        if match is None:
            raise ValueError("want keywords as name=value, with ' around a value that holds blanks")
        value = match["quoted"] if match["quoted"] is not None else match["bare"]
        given[match["key"]] = re.sub(r"\\(.)", r"\1", value)
        end = match.end()
    return given


ONE_HOST = "must name one host: the evidence has to be about one PostgreSQL, always the same"


def _check(given: dict[str, str]) -> None:
    for key in given:
        if key not in _KNOWN:
            near = get_close_matches(key, sorted(_TAKEN), 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            # What follows an unquoted blank in a password looks like a keyword too.
            shown = key if near or "password" not in given else "what follows a blank"
            raise ValueError(f"{shown} is not a connection parameter that is supported here{hint}")
    for key, words in _ONLY.items():
        if key in given and given[key] not in words:
            raise ValueError(f"{key} must be {either(words)}")
    if "," in given.get("host", "") or "," in given.get("port", ""):
        raise ValueError(ONE_HOST)
    host = given.get("host", "/")
    if not host.startswith("/") and not is_host(host):
        raise ValueError("host must be a name, an address, or the absolute folder of a Unix socket")
    port = given.get("port")
    if port is not None and not (re.fullmatch(r"\d{1,5}", port, re.ASCII) and 1 <= int(port) <= 65535):
        raise ValueError("port must be 1 to 65535")
