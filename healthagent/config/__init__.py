"""What users decide: one file, the environment, the command line."""

from healthagent.config.describe import example, schema, show
from healthagent.config.dsn import AsyncpgArguments, Dsn, parse_dsn
from healthagent.config.kubernetes import KubernetesSettings
from healthagent.config.load import ConfigError, Configuration, load
from healthagent.config.peers import Discovery, PeerEntry
from healthagent.config.pgpool_sync import PgpoolSyncSettings
from healthagent.config.reach import where_it_answers
from healthagent.config.reload import Difference, reloadable_difference, with_live_keys
from healthagent.config.secret import Secret
from healthagent.config.settings import (
    AgentCheckSettings,
    ChecksSettings,
    ControlSettings,
    FenceSettings,
    LogSettings,
    PeerSettings,
    PostgresSettings,
    ReplicaSettings,
    Settings,
    TlsSettings,
)
from healthagent.config.values import Address

__all__ = [
    "Address",
    "AgentCheckSettings",
    "AsyncpgArguments",
    "ChecksSettings",
    "ConfigError",
    "Configuration",
    "ControlSettings",
    "Difference",
    "Discovery",
    "Dsn",
    "FenceSettings",
    "KubernetesSettings",
    "LogSettings",
    "PeerEntry",
    "PeerSettings",
    "PgpoolSyncSettings",
    "PostgresSettings",
    "ReplicaSettings",
    "Secret",
    "Settings",
    "TlsSettings",
    "example",
    "load",
    "parse_dsn",
    "reloadable_difference",
    "schema",
    "show",
    "where_it_answers",
    "with_live_keys",
]
