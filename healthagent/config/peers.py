"""The other members: a list of them, or a name that DNS resolves to them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated
from urllib.parse import urlsplit

from healthagent.config.document import Entry, Flaw, Mapping, Node, Rejected, Scalar, Sequence
from healthagent.config.dsn import Dsn, DsnText
from healthagent.config.keys import Field, Key, fields_of, parse_record, record_schema
from healthagent.config.lists import pairs
from healthagent.config.values import (
    Address,
    Choice,
    Flag,
    HostPort,
    Integer,
    Schema,
    Text,
    is_host,
    reject,
    spell_text,
    text_of,
)

MAX_PEERS = 64


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """Where an agent answers: scheme, host and port, nothing else; read into its full form."""

    def parse(self, node: Node) -> str:
        want = "want http://HOST:PORT or https://HOST:PORT"
        text = text_of(node, want)
        if "@" in text:
            # Not repeated: what stands before the @ is a password more often than not.
            raise Rejected(Flaw(f"{want} without a user or password", line=node.line))
        match = re.fullmatch(
            r"(https?)://(?:\[([0-9A-Fa-f:.]+)\]|([^/:?#\[\]\s]+))(?::(\d{1,5}))?/?", text, re.ASCII | re.I
        )
        if match is None:
            reject(want, node)
        scheme, host = match[1].lower(), (match[2] or match[3]).lower()
        port = int(match[4] or (80 if scheme == "http" else 443))
        address = Address(host, port)
        if not is_host(host) or not 1 <= port <= 65535 or address.everywhere:
            reject(want, node)
        return f"{scheme}://{address}"

    def spell(self, value: str) -> str:
        return spell_text(value)

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+/?$"}


@dataclass(frozen=True, slots=True)
class DnsName:
    def parse(self, node: Node) -> str:
        text = text_of(node, "want a DNS name")
        if not is_host(text) or text.replace(".", "").isdigit() or ":" in text:
            reject("want a DNS name", node)
        return text

    def spell(self, value: str) -> str:
        return spell_text(value)

    @property
    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, "maxLength": 253}


@dataclass(frozen=True, slots=True)
class PeerEntry:
    name: Annotated[str, Key("Its name, as its own configuration has it", Text())]
    url: Annotated[str, Key("Where its agent answers", BaseUrl())]
    witness: Annotated[bool, Key("Whether it has no PostgreSQL, only a voice", Flag())] = False
    dsn: Annotated[
        Dsn | None,
        Key("How to ask its PostgreSQL while its agent is silent; null: do not", DsnText(), nullable=True),
    ] = None
    postgres: Annotated[
        Address | None,
        Key("Its PostgreSQL, for clients; null: the URL's host, port 5432", HostPort(), nullable=True),
    ] = None
    agent_check: Annotated[
        Address | None,
        Key("Its HAProxy agent-check; null: the URL's host, port 8009", HostPort(), nullable=True),
    ] = None


@dataclass(frozen=True, slots=True)
class Discovery:
    """All members behind one DNS name; exactly one of `dns` and `srv` is set."""

    expected: Annotated[int, Key("How many members there are, this one included", Integer(1, MAX_PEERS + 1))]
    dns: Annotated[
        str | None, Key("A name whose A and AAAA records are the members", DnsName(), nullable=True)
    ] = None
    srv: Annotated[str | None, Key("A name whose SRV records are the members", DnsName(), nullable=True)] = (
        None
    )
    port: Annotated[int, Key("The agents' port, with dns", Integer(1, 65535))] = 8008
    scheme: Annotated[str, Key("How to speak to the agents", Choice(("http", "https")))] = "http"


@dataclass(frozen=True, slots=True)
class Peers:
    """The list of members, or how to discover them."""

    def parse(self, node: Node) -> tuple[PeerEntry, ...] | Discovery:
        if isinstance(node, Mapping):
            return _discovery(node)
        if isinstance(node, Scalar) and not node.is_null:
            short = pairs(node, "want NAME=URL,NAME=URL")
            node = Sequence(tuple(_short_entry(name, url) for name, url in short), node.line)
        if not isinstance(node, Sequence):
            reject("want a list of peers ([] for none), or {dns: NAME, expected: COUNT}", node)
        if len(node.items) > MAX_PEERS:
            raise Rejected(Flaw(f"want at most {MAX_PEERS} peers", str(len(node.items)), line=node.line))
        return _entries(node)

    def spell(self, value: tuple[PeerEntry, ...] | Discovery) -> str:
        """Write discovery on one line, and each entry on its own."""
        if isinstance(value, Discovery):
            return _flow(value)
        return "".join(f"\n  - {_flow(entry)}" for entry in value) or "[]"

    @property
    def schema(self) -> Schema:
        entries: Schema = {"type": "array", "maxItems": MAX_PEERS, "items": record_schema(PeerEntry)}
        return {"anyOf": [entries, record_schema(Discovery)]}


def _short_entry(name: str, url: Scalar) -> Mapping:
    return Mapping((Entry("name", Scalar(name, plain=False)), Entry("url", url)))


def _flow(record: PeerEntry | Discovery) -> str:
    def spelled(field: Field) -> str:
        return f"{field.name}: {field.spell(getattr(record, field.name))}"

    given = [f for f in fields_of(type(record)) if getattr(record, f.name) != f.default]
    return "{" + ", ".join(map(spelled, given)) + "}"


def _discovery(node: Mapping) -> Discovery:
    found = parse_record(Discovery, node)
    if (found.dns is None) == (found.srv is None):
        raise Rejected(Flaw("want either dns or srv, and expected", line=node.line))
    if found.srv is not None and any(entry.key == "port" for entry in node.entries):
        raise Rejected(
            Flaw("comes from the SRV records, so it must not be given", key="port", line=node.line)
        )
    return found


def _entries(node: Sequence) -> tuple[PeerEntry, ...]:
    flaws: list[Flaw] = []
    entries: list[PeerEntry] = []
    names: dict[str, int] = {}
    urls: dict[str, str] = {}
    for number, item in enumerate(node.items, start=1):
        label = _label(item, number)
        try:
            entry = parse_record(PeerEntry, item)
        except Rejected as error:
            flaws.extend(error.below(label))
            continue
        if (first := names.setdefault(entry.name, number)) != number:
            flaws.append(
                Flaw(f"two peers have this name, entries {first} and {number}", None, label, item.line)
            )
        elif (other := urls.setdefault(entry.url, entry.name)) != entry.name:
            flaws.append(Flaw(f"must not be the url of {other} too", entry.url, f"{label}.url", item.line))
        if entry.witness and isinstance(item, Mapping):
            flaws.extend(_not_of_a_witness(item, label))
        entries.append(_with_defaults(entry))
    if flaws:
        raise Rejected(*flaws)
    return tuple(entries)


def _not_of_a_witness(item: Mapping, label: str) -> Iterator[Flaw]:
    for inner in item.entries:
        if inner.key in ("dsn", "postgres", "agent_check"):
            yield Flaw("a witness has no PostgreSQL: remove it", None, f"{label}.{inner.key}", inner.line)


def _label(item: Node, number: int) -> str:
    """Name an entry in messages: by its name where it has one that can be shown."""
    if isinstance(item, Mapping):
        for entry in item.entries:
            if entry.key == "name" and isinstance(entry.value, Scalar) and not entry.value.is_null:
                return entry.value.text if entry.value.text.isprintable() else str(number)
    return str(number)


def _with_defaults(entry: PeerEntry) -> PeerEntry:
    if entry.witness:
        return entry
    host = urlsplit(entry.url).hostname
    assert host is not None, "BaseUrl always has one"
    return replace(
        entry,
        postgres=entry.postgres or Address(host, 5432),
        agent_check=entry.agent_check or Address(host, 8009),
    )
