"""The table of keys, read off the dataclasses that hold the values.

A field's annotation says what it is for, how it is written and whether it may change while
the agent runs; its default is the dataclass's own. File, environment, command line, example,
schema and `config show` all follow this one table.
"""

from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from healthagent.config.document import Flaw, Mapping, Node, Rejected, Scalar, quoted
from healthagent.config.secret import SecretText
from healthagent.config.values import AbsolutePath, Kind, Schema


@dataclass(frozen=True, slots=True)
class Key:
    """What a field of a settings dataclass means to a user."""

    help: str  # one sentence without its full stop: the effect
    kind: Kind
    _: KW_ONLY
    nullable: bool = False
    computed: str | None = None  # what null stands for, where that is a value and not none
    live: bool = False  # may change while the agent runs
    flag: str | None = None  # on the command line of `run`


@dataclass(frozen=True, slots=True)
class Field:
    """One key: where it stands, what it is, and its default (MISSING: it must be given)."""

    section: str  # empty: the top level
    name: str
    key: Key
    default: Any
    secret: bool = False
    file_of: str | None = None  # the path of the secret that the named file holds

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        return "HEALTHAGENT_" + self.path.replace(".", "_").upper()

    def parse(self, node: Node) -> Any:
        if isinstance(node, Scalar) and node.is_null and self.key.nullable:
            return self.default if self.key.computed else None
        return self.key.kind.parse(node)

    def spell(self, value: Any) -> str:
        return "null" if value is None else self.key.kind.spell(value)


def fields_of(cls: type, section: str = "") -> Iterator[Field]:
    """List the keys of a settings dataclass, those of its sections included, in order."""
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        hint = hints[field.name]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        for key in getattr(hint, "__metadata__", ()):
            secret = isinstance(key.kind, SecretText)
            yield Field(section, field.name, key, default, secret=secret)
            if secret:
                path = f"{section}.{field.name}"
                in_file = Key(f"A file that holds {path}", AbsolutePath(), nullable=True, live=key.live)
                yield Field(section, f"{field.name}_file", in_file, None, file_of=path)
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from fields_of(hint, field.name)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the rule for an unknown name, with the nearest known one."""
    known = list(known)
    elsewhere = [path for path in known if path.rpartition(".")[2] == name.rpartition(".")[2]]
    near = get_close_matches(name, known, 1, 0.75) or elsewhere[:1]
    return "unknown setting" + (f" (did you mean {near[0]}?)" if near else "")


Record = TypeVar("Record")


def parse_record(cls: type[Record], node: Node) -> Record:
    """Read a mapping into a dataclass of keys. Raises Rejected with everything that is wrong."""
    table = {field.name: field for field in fields_of(cls)}
    if not isinstance(node, Mapping):
        raise Rejected(Flaw(f"want a mapping of {', '.join(table)}", quoted(node), line=node.line))
    flaws: list[Flaw] = []
    values: dict[str, Any] = {}
    for entry in node.entries:
        field = table.get(entry.key)
        if field is None:
            flaws.append(Flaw(did_you_mean(entry.key, table), key=entry.key, line=entry.line))
            continue
        try:
            values[field.name] = field.parse(entry.value)
        except Rejected as error:
            flaws.extend(error.below(entry.key))
    given = {entry.key for entry in node.entries}
    for field in table.values():
        if field.default is MISSING and field.name not in given:
            flaws.append(Flaw("is missing", key=field.name, line=node.line))
    if flaws:
        raise Rejected(*flaws)
    return cls(**values)


def record_schema(cls: type) -> Schema:
    """Describe a dataclass of keys as a JSON Schema object."""
    table = list(fields_of(cls))
    sections = {field.section: None for field in table if field.section}
    properties: Schema = {f.name: field_schema(f) for f in table if not f.section}
    for section in sections:
        inner: Schema = {f.name: field_schema(f) for f in table if f.section == section}
        properties[section] = {
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": inner,
        }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [f.name for f in table if f.default is MISSING],
        "properties": properties,
    }


def field_schema(field: Field) -> Schema:
    schema = field.key.kind.schema
    if field.key.nullable:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return {"description": field.key.help, **schema}
