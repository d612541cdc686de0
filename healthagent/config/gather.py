"""What somebody wrote, and where: the file, the environment, the command line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from healthagent.config import document
from healthagent.config.document import Flaw, Node, Rejected, Scalar
from healthagent.config.dsn import Dsn
from healthagent.config.keys import Field, did_you_mean, fields_of
from healthagent.config.peers import PeerEntry
from healthagent.config.settings import Settings

MAX_FILE_BYTES = 1 << 20
CONFIG_VARIABLE = "HEALTHAGENT_CONFIG"
# What the fence hook and pgpool's failover script have in their environment.
OTHER_VARIABLES = frozenset(
    f"HEALTHAGENT_{word}"
    for word in ("AGENTS", "DETAIL", "MEMBERS_HEARD", "NODE", "REASON", "ROLE", "TIMELINE")
)
# Kubernetes gives every pod such variables for a Service named healthagent or healthagent-*;
# a bare _PORT is one only with a URL in it: HEALTHAGENT_PORT=8008 is somebody's idea of a setting.
_SERVICE_LINK = re.compile(
    r"HEALTHAGENT_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*"
    r"|HEALTHAGENT_(\w+_)?PORT=(tcp|udp|sctp)://.*",
    re.DOTALL,
)

TABLE: Mapping[str, Field] = {key.path: key for key in fields_of(Settings)}
SECTIONS = tuple(dict.fromkeys(key.section for key in TABLE.values() if key.section))
_NAMES = (*TABLE, *SECTIONS)
_VARIABLES = {key.variable: key for key in TABLE.values()}
_STRUCTURED = frozenset({"peers", "tags", "fence.command", "fence.on"})

FILE, ENVIRONMENT, COMMAND_LINE = range(3)  # the higher wins

Flags = Mapping[str, str | bool | Sequence[str]]
EXPOSED = (
    "every user of this machine can read the password in the list of processes:"
    " use postgres.password_file, PGPASSFILE or HEALTHAGENT_POSTGRES_DSN"
)


@dataclass(frozen=True, slots=True)
class Given:
    """One value as somebody wrote it."""

    field: Field
    node: Node
    rank: int
    origin: str  # the file, the variable or the flag

    def parse(self) -> Any:
        """What it says. Raises Rejected."""
        return self.field.parse(self.node)

    def exposes(self, value: object) -> bool:
        """Whether what it says has a password in an argument."""
        return self.rank == COMMAND_LINE and _holds_password(value)

    def problem(self, flaw: Flaw) -> "Problem":
        return Problem.at(self.rank, self.place(flaw), flaw, self.node.line)

    def place(self, flaw: Flaw) -> str:
        """Say where a person finds it."""
        if self.rank != FILE:
            return f"{self.origin}: {flaw.key}" if flaw.key else self.origin
        key = f"{self.field.path}.{flaw.key}" if flaw.key else self.field.path
        return f"{self.origin}:{flaw.line or self.node.line}: {key}"

    @property
    def source(self) -> str:
        return f"{self.origin}:{self.node.line}" if self.rank == FILE else self.origin


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something wrong; sorted as a person reads: the file from its top, then what overrides it."""

    rank: int
    line: int
    text: str = field(compare=False)  # place, rule, value

    @classmethod
    def at(cls, rank: int, place: str, flaw: Flaw, line: int = 0) -> "Problem":
        got = f", got {flaw.got}" if flaw.got is not None else ""
        text = f"{place}: {flaw.rule}{got}"
        # A key may hold a newline; a problem is one line.
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        return cls(rank, flaw.line or line, text)


@dataclass(slots=True)
class Gathered:
    """All that was written, in rising precedence, and what could not even be attributed to a key."""

    given: list[Given] = field(default_factory=list)
    problems: list["Problem"] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # one sentence each
    readable: bool = True  # False: the file said more than we know

    def file(self, path: str) -> None:
        try:
            root, twice = document.read(_read(path))
            entries = _entries(root)
        except Rejected as error:
            self.readable = False
            for flaw in error.flaws:
                self._complain(FILE, f"{path}:{flaw.line}" if flaw.line else path, flaw)
            return
        for flaw in twice:  # not a reason to keep what else is wrong for the next attempt
            self._complain(FILE, f"{path}:{flaw.line}", flaw)
        for key, node in entries:
            if key in TABLE:
                self.given.append(Given(TABLE[key], node, FILE, path))
                continue
            rule = "want a mapping of its settings" if key in SECTIONS else did_you_mean(key, _NAMES)
            got = document.quoted(node) if key in SECTIONS else None
            self._complain(FILE, f"{path}:{node.line}", Flaw(rule, got, key, node.line))

    def environment(self, variables: Mapping[str, str]) -> None:
        for name in sorted(variables):
            if name == TABLE["peers"].variable and not variables[name].strip():
                # as a template leaves it where there are none; it takes no peers of the file away
                self.ignored.append(f"{name}: is empty and counts as not given")
            elif name in _VARIABLES:
                self._text(_VARIABLES[name], variables[name], ENVIRONMENT, name)
            elif name.startswith("HEALTHAGENT_") and not _of_others(name, variables[name]):
                self._complain(ENVIRONMENT, name, Flaw(did_you_mean(name, _VARIABLES)))

    def command_line(self, flags: Flags) -> None:
        for path, value in flags.items():
            key = TABLE[path]
            if isinstance(value, bool):
                value = "true" if value else "false"
            text = value if isinstance(value, str) else ",".join(value)
            self._text(key, text, COMMAND_LINE, key.key.flag or path)

    def _text(self, key: Field, text: str, rank: int, origin: str) -> None:
        if not text.strip():
            self._complain(rank, origin, Flaw("must not be empty: leave it out, or write null"))
            return
        node: Node = Scalar(text)
        if key.path in _STRUCTURED and text.lstrip()[0] in "[{":
            try:
                node = document.parse(text)
            except Rejected as error:
                for flaw in error.flaws:
                    self._complain(rank, origin, flaw)
                return
        self.given.append(Given(key, node, rank, origin))

    def _complain(self, rank: int, place: str, flaw: Flaw) -> None:
        self.problems.append(Problem.at(rank, f"{place}: {flaw.key}" if flaw.key else place, flaw))


def _holds_password(value: object) -> bool:
    """Whether a DSN, or that of a peer, has a password in it."""
    if isinstance(value, tuple):
        return any(_holds_password(entry.dsn) for entry in value if isinstance(entry, PeerEntry))
    return isinstance(value, Dsn) and bool(value.password or value.sslpassword)


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Rejected(Flaw(f"cannot be read: {error.strerror}")) from None
    if len(content) > MAX_FILE_BYTES:
        raise Rejected(Flaw("must not be larger than 1 MiB"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Rejected(Flaw("must be UTF-8", line=content.count(b"\n", 0, error.start) + 1)) from None


def _entries(root: Node) -> list[tuple[str, Node]]:
    """Flatten the document into keys; a section with nothing in it has none."""
    if isinstance(root, Scalar) and root.is_null:
        return []
    if not isinstance(root, document.Mapping):
        raise Rejected(Flaw("want a mapping of settings", document.quoted(root), line=root.line))
    flat: list[tuple[str, Node]] = []
    for entry in root.entries:
        value = entry.value
        if entry.key in SECTIONS and isinstance(value, document.Mapping):
            flat.extend((f"{entry.key}.{inner.key}", _at(inner)) for inner in value.entries)
        elif not (entry.key in SECTIONS and isinstance(value, Scalar) and value.is_null):
            flat.append((entry.key, _at(entry)))
    return flat


def _at(entry: document.Entry) -> Node:
    """Give a value the line of its key: that is where a person looks for it."""
    return replace(entry.value, line=entry.line)


def _of_others(name: str, text: str) -> bool:
    return (
        name in OTHER_VARIABLES
        or name == CONFIG_VARIABLE
        or _SERVICE_LINK.fullmatch(f"{name}={text}") is not None
    )
