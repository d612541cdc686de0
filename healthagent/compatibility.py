"""Metrics under the names of other exporters, so that their dashboards and alerts go on: off by default.

`patroni`: those of Patroni's /metrics (patroni/api.py, do_GET_metrics, 4.1), labels scope and name.
`postgres_exporter`: its replication collector (collector/pg_replication.go), as old and new versions name it.

Roles are what PostgreSQL says, as there; who may be written to is healthagent_primary alone. What there is
not here, or is not known, has no sample: Patroni's dcs_last_seen and pending_restart never.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from healthagent.board import Board
from healthagent.core.members import heard
from healthagent.core.model import Instant, Role, Snapshot
from healthagent.server.patroni import COMPATIBLE_WITH, in_maintenance, node_json

POSTGRES_EXPORTER = "postgres_exporter"
PATRONI = "patroni"

# Patroni's numbers for its words; the others of the 15 are of its own doings
_STATES = {"running": 5, "starting": 6, "stopped": 12}
_UNKNOWN_STATE = -1

Row = tuple[str, str, float | None]  # name, what it means here, and the value: None when it is not known


class Compatibility(Collector):
    """The families that `wanted` names now."""

    def __init__(
        self, board: Board, clock: Callable[[], Instant], wanted: Callable[[], Collection[str]]
    ) -> None:
        self._board = board
        self._clock = clock
        self._wanted = wanted

    def collect(self) -> Iterator[Metric]:
        wanted, board, now = self._wanted(), self._board, self._clock()
        identity = board.identity
        if POSTGRES_EXPORTER in wanted:
            own = {"cluster": identity.cluster, "name": identity.name}
            yield from _gauges(_postgres_exporter(board, now), own)
        if PATRONI in wanted:
            yield from _gauges(_patroni(board, now), {"scope": identity.cluster, "name": identity.name})


def _gauges(rows: Iterable[Row], labels: dict[str, str]) -> Iterator[Metric]:
    """All as gauges: Patroni's counters lack the `_total` that the format wants of a counter."""
    for name, text, value in rows:
        family = GaugeMetricFamily(name, text, labels=list(labels))
        if value is not None:
            family.add_metric(list(labels.values()), value)
        yield family


def _postgres_exporter(board: Board, now: Instant) -> Iterator[Row]:
    snapshot = _fresh(board, now)
    lag = _replay_age(snapshot, now) if snapshot else None
    age = "Age of the last replayed commit, 0 on a primary; it grows while the primary commits nothing."
    yield (
        "pg_replication_is_replica",
        "1 if PostgreSQL is in recovery.",
        None if snapshot is None else snapshot.role is Role.REPLICA,
    )
    yield "pg_replication_lag", age, lag
    yield "pg_replication_lag_seconds", age, lag


def _replay_age(snapshot: Snapshot, now: Instant) -> float | None:
    if snapshot.role is Role.PRIMARY:
        return 0.0
    if snapshot.replay_age_seconds is None:
        return None
    return max(0.0, snapshot.replay_age_seconds + snapshot.age(now))


def _fresh(board: Board, now: Instant) -> Snapshot | None:
    return board.local.snapshot if board.role(now) is not None else None


def _patroni(board: Board, now: Instant) -> Iterator[Row]:
    """The same words as /patroni, as numbers. Patroni's 0 for "not there" is kept, except on a witness."""
    if board.policy.witness:
        return
    snapshot, said = _fresh(board, now), node_json(board, now)
    role = snapshot.role if snapshot else None
    yield "patroni_version", "The Patroni whose answers are imitated.", _number(COMPATIBLE_WITH)
    yield "patroni_postgres_running", "1 if PostgreSQL runs.", said["state"] == "running"
    yield (
        "patroni_postgres_state",
        "Patroni's number for the state: 5 running, 6 starting, 12 stopped, -1 unknown.",
        _STATES.get(str(said["state"]), _UNKNOWN_STATE),
    )
    yield (
        "patroni_postmaster_start_time",
        "When PostgreSQL was started, 0 if unknown.",
        _epoch(snapshot.postmaster_started_at if snapshot else None),
    )
    yield (
        "patroni_primary",
        "1 if PostgreSQL is a primary, refused or not.",
        role is Role.PRIMARY,
    )
    yield "patroni_standby_leader", "0: there is no standby cluster here.", 0
    yield "patroni_replica", "1 if PostgreSQL is in recovery.", role is Role.REPLICA
    for kind in ("sync", "quorum"):
        name = f"{kind}_standby"
        yield f"patroni_{name}", f"1 if its primary calls this replica {kind}.", said.get(name) is True
    yield from _wal(snapshot)
    state = snapshot.replication_state if snapshot else None
    for word in ("streaming", "in archive recovery"):
        name = f"patroni_postgres_{word.replace(' ', '_')}"
        yield name, f"1 if this replica is {word}.", None if snapshot is None else state == word
    yield (
        "patroni_postgres_server_version",
        "PostgreSQL's version, 0 if unknown.",
        snapshot.server_version if snapshot else 0,
    )
    yield "patroni_postgres_timeline", "PostgreSQL's timeline, 0 if unknown.", _timeline(snapshot)
    yield "patroni_cluster_unlocked", "1 if no node is known that may be written to.", not _led(board, now)
    yield "patroni_failsafe_mode_is_active", "0: there is no such mode here.", 0
    yield "patroni_is_paused", "1 while an operator has taken this node out.", in_maintenance(board, now)
    yield "patroni_dcs_last_seen", "Never a sample: there is no DCS here.", None
    yield "patroni_pending_restart", "Never a sample: it is not asked for.", None


def _wal(snapshot: Snapshot | None) -> Iterator[Row]:
    on_replica = snapshot if snapshot and snapshot.role is Role.REPLICA else None
    flushed = snapshot.flush_lsn if snapshot and on_replica is None else None
    received, replayed = (on_replica.received_lsn, on_replica.replayed_lsn) if on_replica else (None, None)
    yield "patroni_xlog_location", "Flushed WAL of a primary in bytes, 0 on a replica.", flushed or 0
    yield "patroni_xlog_received_location", "Received WAL of a replica in bytes, else 0.", received or 0
    yield "patroni_xlog_replayed_location", "Replayed WAL of a replica in bytes, else 0.", replayed or 0
    yield (
        "patroni_xlog_replayed_timestamp",
        "When the last replayed commit was made, 0 if unknown.",
        _epoch(on_replica.replayed_timestamp if on_replica else None),
    )
    paused = on_replica is not None and on_replica.replay_paused
    yield "patroni_xlog_paused", "1 if the replay is paused.", paused


def _timeline(snapshot: Snapshot | None) -> int:
    return (snapshot.timeline if snapshot else None) or 0


def _led(board: Board, now: Instant) -> bool:
    """Whether this node or one that is heard may be written to."""
    statements = (heard(peer, now, board.policy) for peer in board.peers.values())
    return board.primary(now).ok or any(one is not None and one.serving for one in statements)


def _number(version: str) -> int:
    """4.1.5 as 40105: two digits for each part."""
    return int("".join(part.zfill(2) for part in version.split(".")))


def _epoch(timestamp: str | None) -> float:
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
