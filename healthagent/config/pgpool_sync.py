"""The section of `healthagent pgpool-sync`, the command that runs beside pgpool."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from healthagent.config.document import Entry, Flaw, Mapping, Node, Rejected, Scalar
from healthagent.config.keys import Key
from healthagent.config.lists import pairs
from healthagent.config.peers import BaseUrl
from healthagent.config.secret import Secret, SecretText
from healthagent.config.values import (
    AbsolutePath,
    Address,
    Duration,
    Flag,
    HostPort,
    Integer,
    Schema,
    Text,
    reject,
    spell_text,
)

MAX_BACKENDS = 128  # pgpool's own limit
# 8008 is the agent's, 8009 its agent-check's, 8010 the gate of haproxy.cfg: all may be on one machine
LISTEN = Address("0.0.0.0", 8011)
UNREAD = -1  # in what is kept of bad backends: a number that could not be read


def _named(node: Node, want: str, flaws: list[Flaw]) -> Iterator[Entry]:
    """The entries of a mapping, or of NAME=VALUE,NAME=VALUE; the document has refused double keys already.

    What is no NAME=VALUE goes to `flaws`.
    """
    if isinstance(node, Scalar) and not node.is_null:
        # A password may have a comma in it: then no part of it is shown.
        parts = [node.text] if "@" in node.text else node.text.split(",")
        short: list[tuple[str, Scalar]] = []
        for part in parts:
            try:
                short += tuple(pairs(Scalar(part, node.line), want))
            except Rejected as error:
                flaws.extend(error.flaws)
        node = Mapping(tuple(Entry(name, value, node.line) for name, value in short), node.line)
    if not isinstance(node, Mapping):
        reject(want, node)
    if len(node.entries) > MAX_BACKENDS:
        raise Rejected(Flaw(f"want at most {MAX_BACKENDS}", str(len(node.entries)), line=node.line))
    yield from node.entries


@dataclass(frozen=True, slots=True)
class AgentUrls:
    """A mapping of names to base URLs. What is kept of a bad one has "" for a URL that could not be read."""

    def parse(self, node: Node) -> tuple[tuple[str, str], ...]:
        flaws: list[Flaw] = []
        names: dict[str, str] = {}
        urls: dict[str, str] = {}
        entries = list(_named(node, "want agents such as {pg1: 'http://10.0.0.11:8008'}", flaws))
        nameless = bool(flaws)
        for entry in entries:
            name = entry.key
            try:
                Text().parse(Scalar(name, entry.line, plain=False))
                url = BaseUrl().parse(entry.value)
            except Rejected as error:
                flaws.extend(error.below(name))
                names.setdefault(name, "")
                continue
            if name in names:
                flaws.append(Flaw("two agents have this name", None, name, entry.line))
            elif url in urls:
                flaws.append(Flaw(f"must not be the url of {urls[url]} too", url, name, entry.line))
            names[name] = url
            urls.setdefault(url, name)
        if flaws:
            raise Rejected(*flaws, kept=None if nameless else tuple(names.items()))
        return tuple(names.items())

    def spell(self, value: tuple[tuple[str, str], ...]) -> str:
        return "{" + ", ".join(f"{spell_text(name)}: {spell_text(url)}" for name, url in value) + "}"

    @property
    def schema(self) -> Schema:
        return {"type": "object", "maxProperties": MAX_BACKENDS, "additionalProperties": BaseUrl().schema}


@dataclass(frozen=True, slots=True)
class BackendIndexes:
    """A mapping of agents' names to pgpool's backend numbers, in what is kept of a bad one UNREAD."""

    def parse(self, node: Node) -> tuple[tuple[str, int], ...]:
        flaws: list[Flaw] = []
        indexes: dict[str, int] = {}
        for entry in list(_named(node, "want backends such as {pg1: 0, pg2: 1}", flaws)):
            try:
                index = Integer(0, MAX_BACKENDS - 1).parse(entry.value)
            except Rejected as error:
                flaws.extend(error.below(entry.key))
                indexes.setdefault(entry.key, UNREAD)
                continue
            if entry.key in indexes:
                flaws.append(Flaw("is given twice", None, entry.key, entry.line))
            elif index in indexes.values():
                other = next(name for name, taken in indexes.items() if taken == index)
                flaws.append(
                    Flaw(f"two agents for one backend, {other} too", str(index), entry.key, entry.line)
                )
            indexes[entry.key] = index
        if flaws:
            raise Rejected(*flaws, kept=tuple(indexes.items()))
        return tuple(indexes.items())

    def spell(self, value: tuple[tuple[str, int], ...]) -> str:
        return "{" + ", ".join(f"{spell_text(name)}: {index}" for name, index in value) + "}"

    @property
    def schema(self) -> Schema:
        return {
            "type": "object",
            "maxProperties": MAX_BACKENDS,
            "additionalProperties": Integer(0, MAX_BACKENDS - 1).schema,
        }


# every key is live: the agent does not use it, so its reload has nothing to wait for
@dataclass(frozen=True, slots=True)
class PgpoolSyncSettings:
    """`healthagent pgpool-sync`, which runs beside pgpool and makes its view follow the agents."""

    agents: Annotated[
        tuple[tuple[str, str], ...],
        Key("Name and base URL of the agent of each backend, and of witnesses", AgentUrls(), live=True),
    ] = ()
    backends: Annotated[
        tuple[tuple[str, int], ...],
        Key(
            "pgpool's number of each agent's node, none for a witness; {}: by host, or else in their order",
            BackendIndexes(),
            live=True,
        ),
    ] = ()
    cluster: Annotated[
        str | None,
        Key(
            "The cluster that all agents must belong to; null: to the same one",
            Text(),
            nullable=True,
            live=True,
        ),
    ] = None
    ca: Annotated[
        Path | None,
        Key(
            "Who may have signed the agents' certificates; null: the system's list",
            AbsolutePath(),
            nullable=True,
            live=True,
        ),
    ] = None
    pcp_host: Annotated[str, Key("Where pgpool's PCP listens", Text(253), live=True)] = "localhost"
    pcp_socket_dir: Annotated[
        Path | None,
        Key(
            "pgpool's pcp_socket_dir; null: TCP, to pcp_host", AbsolutePath(most=90), nullable=True, live=True
        ),
    ] = None
    pcp_port: Annotated[int, Key("pgpool's pcp_port", Integer(1, 65535), live=True)] = 9898
    pcp_user: Annotated[str, Key("A user of pcp.conf", Text(127), live=True)] = "pcp"
    pcp_password: Annotated[
        Secret | None, Key("That user's password", SecretText(), nullable=True, live=True)
    ] = None
    interval: Annotated[
        float, Key("How often agents and pgpool are compared", Duration(0.1, 60), live=True)
    ] = 1.0
    timeout: Annotated[float, Key("How long one answer may take", Duration(0.1, 10), live=True)] = 1.0
    fall: Annotated[
        int, Key("How often in a row an agent must refuse before a detach", Integer(1, 100), live=True)
    ] = 2
    rise: Annotated[
        int,
        Key(
            "How often in a row an agent must permit before an attach or a promotion",
            Integer(1, 100),
            live=True,
        ),
    ] = 2
    hold: Annotated[
        float, Key("How long a backend that was detached stays so", Duration(0, 3600), live=True)
    ] = 5.0
    per_minute: Annotated[
        int, Key("How often in a minute one backend may be attached or promoted", Integer(1, 60), live=True)
    ] = 3
    fence: Annotated[
        bool,
        Key("Detach backends whose agent refuses them; false: only attach and promote", Flag(), live=True),
    ] = True
    listen: Annotated[
        Address | None,
        Key(
            "HOST:PORT of its own /ready, /liveness and /metrics; null: none",
            HostPort(listening=True),
            nullable=True,
            live=True,
        ),
    ] = LISTEN
