"""Kinds of several values: words, tags, a command."""

import ipaddress
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from healthagent.config.document import Entry, Flaw, Mapping, Node, Rejected, Scalar, Sequence, quoted
from healthagent.config.values import Flag, Schema, Text, reject, spell_text, text_of


def pairs(node: Scalar, want: str) -> Iterator[tuple[str, Scalar]]:
    """Split `name=value,name=value`, the short form for the environment and the command line."""
    for part in node.text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not name or not value:
            # Not repeated where it may be a URL with a password in it.
            raise Rejected(Flaw(want, None if "@" in node.text else quoted(node), line=node.line))
        yield name, Scalar(value, node.line)


@dataclass(frozen=True, slots=True)
class Words:
    """Some of a fixed set of words, at least one, in the order of the set."""

    words: tuple[str, ...]

    def parse(self, node: Node) -> tuple[str, ...]:
        want = f"want a list of {', '.join(self.words)}"
        if isinstance(node, Scalar) and not node.is_null:
            node = Sequence(tuple(Scalar(w.strip(), node.line) for w in node.text.split(",")), node.line)
        if not isinstance(node, Sequence) or not node.items:
            reject(want, node)
        given = [text_of(item, want) for item in node.items]
        for item, word in zip(node.items, given, strict=True):
            if word not in self.words:
                reject(want, item)
        return tuple(word for word in self.words if word in given)

    def spell(self, value: tuple[str, ...]) -> str:
        return "[" + ", ".join(value) + "]"

    @property
    def schema(self) -> Schema:
        return {"type": "array", "minItems": 1, "items": {"enum": list(self.words)}}


MAX_ARGUMENTS = 64


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments: a list, or one string that is split as a shell would split it."""

    def parse(self, node: Node) -> tuple[str, ...]:
        want = "want a command such as [/usr/local/bin/fence, --node, pg1]"
        if isinstance(node, Sequence):
            words = [text_of(item, want) for item in node.items]
        else:
            try:
                words = shlex.split(text_of(node, want))
            except ValueError as error:
                reject(f"{want} ({str(error).lower()})", node)
        if not words or not words[0] or "\0" in "".join(words):
            reject(want, node)
        if len(words) > MAX_ARGUMENTS:
            raise Rejected(Flaw(f"want at most {MAX_ARGUMENTS} words", str(len(words)), line=node.line))
        return tuple(words)

    def spell(self, value: tuple[str, ...]) -> str:
        return "[" + ", ".join(map(spell_text, value)) + "]"

    @property
    def schema(self) -> Schema:
        words: Schema = {"type": "array", "minItems": 1, "items": {"type": "string"}}
        return {"anyOf": [words, {"type": "string", "minLength": 1}]}


MAX_NETWORKS = 256
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Networks:
    """Addresses and networks, at least one."""

    def parse(self, node: Node) -> tuple[Network, ...]:
        want = "want a list of addresses and networks such as [10.0.0.0/8, 192.0.2.7]"
        if isinstance(node, Scalar) and not node.is_null:
            node = Sequence(tuple(Scalar(w.strip(), node.line) for w in node.text.split(",")), node.line)
        if not isinstance(node, Sequence) or not node.items:
            reject(want, node)
        if len(node.items) > MAX_NETWORKS:
            raise Rejected(Flaw(f"want at most {MAX_NETWORKS} of them", str(len(node.items)), line=node.line))
        found = []
        for item in node.items:
            try:
                found.append(ipaddress.ip_network(text_of(item, want)))
            except ValueError as error:
                # "10.0.0.7/8 has host bits set": which of the two was meant?
                reject(
                    f"{want} ({str(error).split(' ', 1)[-1]})" if "host bits" in str(error) else want, item
                )
        return tuple(found)

    def spell(self, value: tuple[Network, ...]) -> str:
        return "[" + ", ".join(f'"{network}"' for network in value) + "]"

    @property
    def schema(self) -> Schema:
        networks: Schema = {"type": "array", "minItems": 1, "items": {"type": "string"}}
        return {"anyOf": [networks, {"type": "string", "minLength": 1}]}


MAX_TAGS = 64
Tag = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Tags:
    """Patroni's tags: words about this node. A quoted value is always text."""

    def parse(self, node: Node) -> dict[str, Tag]:
        want = "want a mapping of tags such as {zone: az1}"
        if isinstance(node, Scalar) and not node.is_null:
            short = pairs(node, "want TAG=VALUE,TAG=VALUE")
            node = Mapping(tuple(Entry(name, value, node.line) for name, value in short), node.line)
        if not isinstance(node, Mapping):
            reject(want, node)
        flaws: list[Flaw] = []
        tags: dict[str, Tag] = {}
        for entry in node.entries[:MAX_TAGS]:
            try:
                Text().parse(Scalar(entry.key, entry.line, plain=False))
                # The one tag that decides something must not be a word that only looks like yes.
                is_flag = entry.key == "noloadbalance"
                tags[entry.key] = Flag().parse(entry.value) if is_flag else _tag(entry.value)
            except Rejected as error:
                flaws.extend(error.below(entry.key))
        if len(node.entries) > MAX_TAGS:
            flaws.append(Flaw(f"want at most {MAX_TAGS} tags", str(len(node.entries)), line=node.line))
        if flaws:
            raise Rejected(*flaws)
        return tags

    def spell(self, value: dict[str, Tag]) -> str:
        return "{" + ", ".join(f"{spell_text(k)}: {_spell_tag(v)}" for k, v in value.items()) + "}"

    @property
    def schema(self) -> Schema:
        return {
            "type": "object",
            "maxProperties": MAX_TAGS,
            "properties": {"noloadbalance": {"type": "boolean"}},
            "additionalProperties": {"type": ["boolean", "number", "string"]},
        }


def _tag(node: Node) -> Tag:
    text = Text(most=255).parse(node)
    assert isinstance(node, Scalar)
    if not node.plain:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?(0|[1-9]\d{0,17})", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"[-+]?\d{1,17}\.\d{1,17}", text, re.ASCII):
        return float(text)
    return text


def _spell_tag(value: Tag) -> str:
    if isinstance(value, bool):
        return Flag().spell(value)
    return spell_text(value) if isinstance(value, str) else str(value)
