"""Cut HAProxy configuration text into sections, lines and words, as HAProxy itself does.

Source: HAProxy 2.6 to 3.0, doc/configuration.txt sections 2.1 to 2.4 and parse_line() in tools.c.
There is no line continuation: HAProxy reads a backslash at the end of a line as a word, and
refuses it. Conditional blocks (`.if`) are read as if every branch were taken, and environment
variables stay as they are written, since neither can be known here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_SECTION_WORDS = """
    global defaults frontend backend listen peers resolvers userlist mailers program ring cache
    http-errors log-forward fcgi-app crt-store traces log-profile acme healthcheck
"""
SECTIONS = frozenset(_SECTION_WORDS.split())
PROXIES = frozenset({"frontend", "backend", "listen"})

_DIRECTIVE = re.compile(r"\.(if|elif|else|endif|diag|notice|warning|alert)\b")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
# One piece of a word: quoted, escaped or plain. The order is the order of trial.
_PIECE = re.compile(
    r"""'(?P<strong>[^']*)(?:'|$)"""
    r"""|"(?P<weak>[^"\\]*(?:\\.[^"\\]*)*)(?:"|$)"""
    r"""|\\x(?P<hex>[0-9A-Fa-f]{2})"""
    r"""|\\(?P<escape>[ \t#\\'"nrt])"""
    r"""|(?P<blank>[ \t\r]+)|(?P<comment>\#.*)|(?P<plain>[^'"\\ \t\r#]+|\\)"""
)
_WEAK_ESCAPE = re.compile(r"""\\(?:x([0-9A-Fa-f]{2})|([ \t#\\'"$nrt]))""")


@dataclass(frozen=True)
class Line:
    """One line that is neither empty nor a comment; lines count from 1."""

    number: int
    words: tuple[str, ...]

    def starts(self, *words: str) -> bool:
        """Say whether the line begins with these words."""
        return self.words[: len(words)] == words


@dataclass
class Section:
    """One section with the `defaults` section that it inherits from, if there is one."""

    kind: str
    name: str
    line: int
    lines: list[Line] = field(default_factory=list)
    defaults: "Section | None" = None

    @cached_property
    def by_start(self) -> dict[tuple[str, ...], list[Line]]:
        """Lines by their first word and by their first two, a leading `no` left out."""
        found: dict[tuple[str, ...], list[Line]] = {}
        for line in self.lines:
            start = line.words[1:3] if line.words[0] == "no" else line.words[:2]
            for length in range(1, len(start) + 1):
                found.setdefault(start[:length], []).append(line)
        return found

    def where(self) -> str:
        """Name the section as its first line does."""
        return f"{self.kind} {self.name}".strip()

    def own_and_inherited(self) -> Iterator["Section"]:
        """Yield this section, then the defaults that it inherits from, nearest first."""
        section: Section | None = self
        while section is not None:  # it ends: a section inherits only from one above it
            yield section
            section = section.defaults


def words(text: str) -> tuple[str, ...]:
    """Cut one line into words; quotes and escapes are resolved, a comment ends the line."""
    found: list[str] = []
    pieces: list[str] = []  # of the current word; empty between words, since "" is a word too
    for piece in _PIECE.finditer(text):
        kind = piece.lastgroup
        if kind == "comment":
            break
        if kind == "blank":
            if pieces:
                found.append("".join(pieces))
                pieces.clear()
            continue
        value = piece[kind] if kind else ""
        if kind == "weak":
            value = _WEAK_ESCAPE.sub(_unescaped, value)
        elif kind == "hex":
            value = chr(int(value, 16))
        elif kind == "escape":
            value = _ESCAPES.get(value, value)
        pieces.append(value)
    if pieces:
        found.append("".join(pieces))
    return tuple(found)


def parse(text: str) -> list[Section]:
    """Cut a whole configuration into sections. Lines before the first section are left out."""
    sections: list[Section] = []
    named: dict[str, Section] = {}
    latest: Section | None = None  # the defaults that the next proxy inherits from
    for number, raw in enumerate(text.split("\n"), start=1):
        if _DIRECTIVE.match(raw.lstrip(" \t")):
            continue
        line = Line(number, words(raw))
        if not line.words:
            continue
        if line.words[0] not in SECTIONS:
            if sections:
                sections[-1].lines.append(line)
            continue
        section = _opened(line, named, latest)
        if section.kind == "defaults":
            latest = section
            if section.name:
                named[section.name] = section
        sections.append(section)
    return sections


def _opened(line: Line, named: dict[str, Section], latest: Section | None) -> Section:
    kind, *rest = line.words
    name = "" if not rest or rest[0] == "from" else rest[0]
    section = Section(kind, name, line.number)
    if "from" in rest[:2] and rest[-1] != "from":
        section.defaults = named.get(rest[rest.index("from") + 1])
    elif kind in PROXIES:
        section.defaults = latest
    return section


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return _ESCAPES.get(match[2], match[2])
