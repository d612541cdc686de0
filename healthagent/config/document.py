"""YAML as text with line numbers.

A scalar stays the text that was written: what it means is the business of its key. So the
surprises of YAML 1.1 cannot happen: the key `on` stays `on`, `10:30` is no number in base 60,
and `zone: no` is not false. Aliases and tags are refused, so a small file cannot grow in
memory, and nothing but text, lists and mappings can come out of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import yaml

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML built without libyaml: slower, the same events
    from yaml import SafeLoader as Loader  # type: ignore[assignment] # the same interface

MAX_DEPTH = 8  # the deepest key of ours is at 4
NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str
    line: int = 0  # 0: not from a file
    plain: bool = True  # written without quotes

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in NULLS


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple["Node", ...]
    line: int = 0


@dataclass(frozen=True, slots=True)
class Mapping:
    entries: tuple["Entry", ...]
    line: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: "Node"
    line: int = 0


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong with a value: which rule it breaks, and what was given instead."""

    rule: str
    got: str | None = None  # None where the value must not be shown, or is none
    key: str = ""  # below the key that was parsed: `pg2.url` in `peers`
    line: int = 0


class Rejected(ValueError):
    """A value that cannot be taken, with everything that is wrong with it.

    `kept` is what of it could be read, for who only looks for more that is wrong; None: nothing.
    """

    def __init__(self, *flaws: Flaw, kept: object = None) -> None:
        super().__init__("; ".join(flaw.rule for flaw in flaws))
        self.flaws = flaws
        self.kept = kept

    def below(self, key: str) -> Iterator[Flaw]:
        """Yield the flaws of an inner value, under the key that holds it."""
        for flaw in self.flaws:
            yield replace(flaw, key=f"{key}.{flaw.key}" if flaw.key else key)


def quoted(node: Node) -> str:
    """Spell what was given, for the end of a sentence."""
    match node:
        case Scalar() if node.is_null:
            return "nothing"
        case Scalar(text) if len(text) > 80:
            return f"{text[:77]!r}..."
        case Scalar(text):
            return repr(text)
        case Sequence():
            return "a list"
        case Mapping():
            return "a mapping"


def parse(text: str) -> Node:
    """Read one YAML document.

    Raises Rejected with the syntax error, or with every key that is given twice.
    An empty document is a null scalar.
    """
    root, twice = read(text)
    if twice:
        raise Rejected(*twice)
    return root


def read(text: str) -> tuple[Node, list[Flaw]]:
    """Read one YAML document, and what is given twice in it: there the first is taken.

    Raises Rejected with the syntax error.
    """
    twice: list[Flaw] = []
    try:
        events = yaml.parse(text, Loader=Loader)
        root = _document(events, twice)
    except yaml.MarkedYAMLError as error:
        # Without the snippet that the library would add: it may show a secret.
        mark = error.problem_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise Rejected(Flaw(f"is no YAML: {said}", line=mark.line + 1 if mark else 0)) from None
    except yaml.YAMLError:
        raise Rejected(Flaw("is no YAML: it holds characters that YAML does not allow")) from None
    return root, twice


_AROUND = (yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent, yaml.StreamEndEvent)


def _document(events: Iterator[yaml.Event], twice: list[Flaw]) -> Node:
    root: Node | None = None
    for event in events:
        if isinstance(event, _AROUND):
            continue
        if root is not None:
            raise Rejected(Flaw("must hold one YAML document, not several", line=_line(event)))
        root = _node(event, events, twice, depth=0, path="")
    return root if root is not None else Scalar("")


def _node(
    event: yaml.Event, events: Iterator[yaml.Event], twice: list[Flaw], *, depth: int, path: str
) -> Node:
    line = _line(event)
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise Rejected(Flaw("YAML anchors and aliases (&name, *name) are not supported here", line=line))
    if getattr(event, "tag", None) is not None:
        raise Rejected(Flaw("YAML tags (!name) are not supported here", line=line))
    if depth > MAX_DEPTH:
        raise Rejected(Flaw(f"is nested deeper than {MAX_DEPTH} levels", line=line))
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(event.value, line, plain=event.implicit[0])
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Node] = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(_node(item, events, twice, depth=depth + 1, path=f"{path}{len(items) + 1}."))
        return Sequence(tuple(items), line)
    entries: dict[str, Entry] = {}
    while not isinstance(item := next(events), yaml.MappingEndEvent):
        key = _node(item, events, twice, depth=depth + 1, path=path)
        if not isinstance(key, Scalar):
            raise Rejected(Flaw("a key must be a word, not a list or a mapping", line=key.line))
        value = _node(next(events), events, twice, depth=depth + 1, path=f"{path}{key.text}.")
        if (first := entries.get(key.text)) is not None:
            twice.append(Flaw(f"given twice, first in line {first.line}", key=path + key.text, line=key.line))
        else:
            entries[key.text] = Entry(key.text, value, key.line)
    return Mapping(tuple(entries.values()), line)


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return int(mark.line) + 1 if mark is not None else 0
