"""The bridge's metrics, read from its last look at scrape time.

The names pgpool2_pool_nodes_* are those of pgpool2_exporter, so that its dashboards go on: `role`
there is pgpool's opinion. That exporter knows no real role; healthagent_pgpool_pg_role has it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from healthagent.core.model import Instant, Role
from healthagent.pgpool.model import Kind, Observed, Says, Status
from healthagent.pgpool.readiness import Look, mismatched, readiness

PREFIX = "healthagent_pgpool"
BACKEND = ("backend", "name", "hostname", "port")
POOL_NODE = ("hostname", "port", "role")


@dataclass(slots=True)
class Counts:
    """What has happened since the start."""

    actions: Counter[Kind] = field(default_factory=Counter)
    refused: Counter[Kind] = field(default_factory=Counter)
    pcp_errors: int = 0
    polls: int = 0


class BridgeCollector(Collector):
    """`look` returns the last one; `max_age` is in seconds."""

    def __init__(
        self,
        look: Callable[[], Look | None],
        counts: Counts,
        clock: Callable[[], Instant],
        max_age: float,
    ) -> None:
        self._look = look
        self._counts = counts
        self._clock = clock
        self._max_age = max_age

    def collect(self) -> Iterator[Metric]:
        look, now = self._look(), self._clock()
        observed = look.observed if look else ()
        yield _gauge(
            "ready", "1 if pgpool writes where the agents say.", readiness(look, now, self._max_age)[0]
        )
        yield _gauge(
            "up", "1 if pgpool answered PCP at the last poll.", bool(look and look.pcp_error is None)
        )
        yield from self._counters()
        yield _age(look, now)
        wrong = sum(mismatched(one) for one in observed)
        yield _gauge("role_mismatch", "Backends that pgpool uses under another role than they have.", wrong)
        yield _gauge(
            "alarms", "What needs a person; the log has the sentences.", len(look.alarms) if look else 0
        )
        yield from _backends(observed)
        yield from _pool_nodes(observed, look)

    def _counters(self) -> Iterator[Metric]:
        polls = CounterMetricFamily(f"{PREFIX}_polls", "Comparisons of pgpool with the agents.")
        polls.add_metric((), self._counts.polls)
        errors = CounterMetricFamily(
            f"{PREFIX}_pcp_errors", "Polls and actions that pgpool's PCP did not answer."
        )
        errors.add_metric((), self._counts.pcp_errors)
        sent = CounterMetricFamily(f"{PREFIX}_actions", "Requests that pgpool accepted.", labels=["action"])
        refused = CounterMetricFamily(
            f"{PREFIX}_actions_refused", "Requests that pgpool refused.", labels=["action"]
        )
        for kind in Kind:
            sent.add_metric((kind,), self._counts.actions[kind])
            refused.add_metric((kind,), self._counts.refused[kind])
        yield from (polls, errors, sent, refused)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=float(value))


def _age(look: Look | None, now: Instant) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_last_poll_age_seconds", "Since the last comparison began.")
    if look is not None:
        family.add_metric((), now - look.at)
    return family


def _backends(observed: Iterable[Observed]) -> Iterator[Metric]:
    """One series for each state that a backend can be in, 1 for the one that it is in."""
    status = GaugeMetricFamily(
        f"{PREFIX}_status",
        "pgpool's status of the backend: 1 for the current one.",
        labels=[*BACKEND, "status"],
    )
    role = GaugeMetricFamily(
        f"{PREFIX}_role", "The role that pgpool gives the backend.", labels=[*BACKEND, "role"]
    )
    real = GaugeMetricFamily(
        f"{PREFIX}_pg_role", "The role that its PostgreSQL has, as seen by pgpool.", labels=[*BACKEND, "role"]
    )
    told = GaugeMetricFamily(f"{PREFIX}_agent_says", "What its agent says.", labels=[*BACKEND, "says"])
    for one in observed:
        labels = (str(one.index), one.name, one.backend.host, str(one.backend.port))
        live = one.live.role if one.live else None
        for known in Status:
            status.add_metric((*labels, known), one.backend.status is known)
        for known_role, is_primary in (("primary", True), ("standby", False)):
            role.add_metric((*labels, known_role), one.backend.is_primary is is_primary)
        for spelled, known_live in (("primary", Role.PRIMARY), ("standby", Role.REPLICA), ("unknown", None)):
            real.add_metric((*labels, spelled), live is known_live)
        for word in Says:
            told.add_metric((*labels, word), one.told.says is word)
    yield from (status, role, real, told)


def _pool_nodes(observed: Iterable[Observed], look: Look | None) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "pgpool2_up",
        "Whether the Pgpool-II server is up (1 for yes, 0 for no).",
        value=float(look is not None and look.pcp_error is None),
    )
    status = GaugeMetricFamily(
        "pgpool2_pool_nodes_status",
        "Backend node Status (1 for up or waiting, 0 for down or unused)",
        labels=POOL_NODE,
    )
    delay = GaugeMetricFamily("pgpool2_pool_nodes_replication_delay", "Replication delay", labels=POOL_NODE)
    for one in observed:
        role = "primary" if one.backend.is_primary else "standby"
        labels = (one.backend.host, str(one.backend.port), role)
        status.add_metric(labels, one.backend.status.attached)
        if one.live is not None:
            delay.add_metric(labels, one.live.delay)
    yield from (up, status, delay)
