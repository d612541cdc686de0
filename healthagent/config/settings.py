"""Every setting, its default and its effect. Durations are seconds, sizes are bytes."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from healthagent.config.dsn import Dsn, DsnText, parse_dsn
from healthagent.config.keys import Key
from healthagent.config.kubernetes import KubernetesSettings
from healthagent.config.lists import Command, Network, Networks, Tag, Tags, Words
from healthagent.config.peers import Discovery, PeerEntry, Peers
from healthagent.config.pgpool_sync import PgpoolSyncSettings
from healthagent.config.secret import Secret, SecretText
from healthagent.config.values import (
    AbsolutePath,
    Address,
    Choice,
    Duration,
    Flag,
    HostPort,
    Integer,
    Size,
    Text,
)

LOCAL_POSTGRES = parse_dsn("postgresql:///postgres")
EVERYWHERE = Address("0.0.0.0", 8008)
PERIOD = Duration(0.05, 60)  # how often, and how long to wait for one answer
MAX_AGE = Duration(0.1, 60)
WAIT = Duration(0.1, 300)  # between nodes: longer than any failover that is still one
START_GATE = 2.5  # seconds: the last round of questions to the peers, at the default intervals
PAUSE = Duration(0, 3600)  # zero is a choice here: at once
FILE = AbsolutePath()
LISTEN = HostPort(listening=True)
TOKEN = SecretText(least=16)  # whoever has it may change who serves
UNIX_SOCKET = AbsolutePath(most=107)  # sockaddr_un
FENCE_REASONS = ("stale_timeline", "lost_conflict", "diverged", "isolated", "lease_expired")


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """The PostgreSQL beside this agent. PG* variables and ~/.pgpass fill in what the dsn leaves out."""

    dsn: Annotated[
        Dsn, Key("How to reach it: a postgresql:// URL or libpq keywords", DsnText(), flag="--dsn")
    ] = LOCAL_POSTGRES
    password: Annotated[
        Secret | None,
        Key(
            "The password, here and for peers' dsn without one; null: libpq's ways",
            SecretText(),
            nullable=True,
        ),
    ] = None
    address: Annotated[
        Address | None,
        Key(
            "HOST:PORT as other nodes reach it; null: the host of listen or of this machine, and its port",
            HostPort(),
            nullable=True,
            live=True,
        ),
    ] = None
    interval: Annotated[float, Key("How often it is asked", PERIOD, live=True)] = 0.5
    timeout: Annotated[float, Key("How long one answer may take", PERIOD, live=True)] = 1.0
    max_age: Annotated[float, Key("How old its last answer may be for a 200", MAX_AGE, live=True)] = 2.0
    reconnect_every: Annotated[
        float, Key("How often a new connection is tried as well", Duration(1, 3600), live=True)
    ] = 10.0


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """How peers are asked."""

    interval: Annotated[float, Key("How often each is asked", PERIOD, live=True)] = 0.5
    timeout: Annotated[float, Key("How long one answer may take", PERIOD, live=True)] = 1.0
    max_age: Annotated[float, Key("How old its last answer may be to count", MAX_AGE, live=True)] = 2.0
    secret: Annotated[
        Secret | None,
        Key(
            "Shared by all agents: signed two-way exchange; null: agents only pull",
            SecretText(),
            nullable=True,
            live=True,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """When a replica may be given reads."""

    max_lag: Annotated[
        int | None,
        Key("Refuse above this many bytes behind; null: no limit", Size(), nullable=True, live=True),
    ] = None
    max_lag_time: Annotated[
        float | None,
        Key("Refuse above this long behind; null: no limit", Duration(0, 86400), nullable=True, live=True),
    ] = None
    grace: Annotated[
        float,
        Key("How long it may not stream, or follow the wrong node, before it refuses", PAUSE, live=True),
    ] = 10.0
    hold: Annotated[
        float, Key("How long the lag must be below the limit before reads come back", PAUSE, live=True)
    ] = 5.0
    require_primary: Annotated[bool, Key("Refuse reads while no primary is known", Flag(), live=True)] = False


@dataclass(frozen=True, slots=True)
class AgentCheckSettings:
    """HAProxy's agent-check."""

    listen: Annotated[
        Address | None,
        Key("HOST:PORT to answer on, by convention port 8009; null: off", LISTEN, nullable=True),
    ] = None


@dataclass(frozen=True, slots=True)
class ChecksSettings:
    """Who may ask, and a second, plain HTTP listener beside one with TLS."""

    listen: Annotated[
        Address | None, Key("HOST:PORT for checks without TLS; null: off", LISTEN, nullable=True)
    ] = None
    allow: Annotated[
        tuple[Network, ...] | None,
        Key(
            "Addresses and networks that may ask, besides this machine (not for /peer); null: everybody",
            Networks(),
            nullable=True,
            live=True,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS of `listen` and towards peers, files in PEM."""

    cert: Annotated[
        Path | None, Key("This agent's certificate chain; null: plain HTTP", FILE, nullable=True)
    ] = None
    key: Annotated[Path | None, Key("The private key of cert", FILE, nullable=True)] = None
    ca: Annotated[
        Path | None,
        Key("Who may have signed peers' certificates; null: the system's list", FILE, nullable=True),
    ] = None
    client_ca: Annotated[
        Path | None,
        Key("Who must have signed the certificates of peers that call; null: nobody", FILE, nullable=True),
    ] = None


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Who may change state (maintenance, override), besides callers on loopback."""

    socket: Annotated[
        Path | None, Key("A Unix socket to listen on; null: none", UNIX_SOCKET, nullable=True)
    ] = None
    token: Annotated[
        Secret | None,
        Key("A bearer token for callers elsewhere; null: nobody", TOKEN, nullable=True, live=True),
    ] = None


@dataclass(frozen=True, slots=True)
class FenceSettings:
    """A command of yours, run once while PostgreSQL is primary and must not be."""

    command: Annotated[
        tuple[str, ...] | None,
        Key(
            "A list, or a string that is split as a shell would; no shell runs it; null: none",
            Command(),
            nullable=True,
            live=True,
        ),
    ] = None
    after: Annotated[float, Key("How long the refusal must have lasted", PAUSE, live=True)] = 5.0
    timeout: Annotated[
        float, Key("How long the command may run before it is killed", Duration(1, 3600), live=True)
    ] = 30.0
    on: Annotated[tuple[str, ...], Key("Which reasons call for it", Words(FENCE_REASONS), live=True)] = (
        FENCE_REASONS
    )


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """/metrics."""

    compatibility: Annotated[
        tuple[str, ...] | None,
        Key(
            "Whose names to use as well, for their dashboards: patroni, postgres_exporter; null: none",
            Words(("patroni", "postgres_exporter")),
            nullable=True,
            live=True,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log, on standard error."""

    level: Annotated[
        str, Key("The least that is written", Choice(("debug", "info", "warning", "error")), live=True)
    ] = "info"
    format: Annotated[str, Key("For people or for machines", Choice(("text", "json")), live=True)] = "text"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a user can decide."""

    name: Annotated[
        str,
        Key(
            "This node, unique in the cluster", Text(), nullable=True, computed="the host name", flag="--name"
        ),
    ] = field(default_factory=socket.gethostname)
    cluster: Annotated[str, Key("The cluster that this node belongs to", Text(), flag="--cluster")] = "main"
    listen: Annotated[
        Address, Key("HOST:PORT where checks and peers are answered", LISTEN, flag="--listen")
    ] = EVERYWHERE
    state_dir: Annotated[
        Path | None,
        Key("Where the agent keeps what must survive a restart; null: restarts forget", FILE, nullable=True),
    ] = Path("/var/lib/healthagent")
    witness: Annotated[bool, Key("True: no PostgreSQL here, only a voice", Flag(), flag="--witness")] = False
    postgres: PostgresSettings = PostgresSettings()
    mode: Annotated[
        str,
        Key(
            "How writes are kept to one node",
            Choice(("conflict",), {"lease": "mode lease is not available in this version, want conflict"}),
        ),
    ] = "conflict"
    on_conflict: Annotated[
        str,
        Key(
            "With two primaries: resolve (the clear winner serves) or demote_all (nobody does)",
            Choice(("resolve", "demote_all")),
            live=True,
        ),
    ] = "resolve"
    system_identifier: Annotated[
        int | None,
        Key(
            "Pin the cluster: another one's primary is never believed; null: trust what is found",
            Integer(1, 2**64 - 1),
            nullable=True,
            live=True,
        ),
    ] = None
    isolation: Annotated[
        str,
        Key(
            "A primary that hears no majority: keep (serves on) or demote (refuses)",
            Choice(("keep", "demote")),
            live=True,
        ),
    ] = "keep"
    isolation_after: Annotated[float, Key("How long it must hear none, with demote", WAIT, live=True)] = 3.0
    start_alone_after: Annotated[
        float,
        Key(
            "Of two members: how long a new primary waits for a silent peer; by default at least drain",
            WAIT,
            live=True,
        ),
    ] = 10.0
    takeover_after: Annotated[
        float,
        Key(
            "How long a conflict's winner must be gone before the loser serves; by default at least drain",
            WAIT,
            live=True,
        ),
    ] = 10.0
    drain: Annotated[
        float, Key("How long after one node stopped serving the next may begin", WAIT, live=True)
    ] = 3.0
    peers: Annotated[
        tuple[PeerEntry, ...],
        Key(
            "The other members, this one may be among them: a list, or DNS as"
            " {dns: NAME or srv: NAME, expected: COUNT, port: 8008, scheme: http}",
            Peers(),
            live=True,
            flag="--peer",
        ),
    ] = ()
    discovery: Discovery | None = None  # in the file: `peers` as a mapping
    peer: PeerSettings = PeerSettings()
    replica: ReplicaSettings = ReplicaSettings()
    agent_check: AgentCheckSettings = AgentCheckSettings()
    checks: ChecksSettings = ChecksSettings()
    tls: TlsSettings = TlsSettings()
    control: ControlSettings = ControlSettings()
    tags: Annotated[
        Mapping[str, Tag],
        Key("Patroni's tags; noloadbalance: true takes this replica out of /replica", Tags(), live=True),
    ] = field(default_factory=dict)
    fence: FenceSettings = FenceSettings()
    metrics: MetricsSettings = MetricsSettings()
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)
    log: LogSettings = LogSettings()
    pgpool_sync: PgpoolSyncSettings = field(default_factory=PgpoolSyncSettings)

    @property
    def round_max_age(self) -> float:
        """Seconds without a completed round of questions, after which this node takes itself for frozen.

        The others wait `drain` for a serving node that falls silent. One that wakes up later must know
        by this, or by the age of its PostgreSQL's last answer, that its verdict is out of date.
        """
        # a silent peer's calls end one time-out apart, and the machine may be busy
        usual = max(START_GATE, 2.5 * max(self.peer.interval, self.peer.timeout))
        in_time = self.drain * 5 / 6
        return usual if self.postgres.max_age <= in_time else min(usual, in_time)
