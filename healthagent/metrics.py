"""Prometheus metrics, read from the board at the moment of the scrape.

Nothing is maintained here, so a metric cannot disagree with a verdict or outlive its evidence:
what is not known now has no sample, never its last value. Each series carries this node's
`cluster` and `name`; families without samples still have their HELP and TYPE.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from healthagent import __version__
from healthagent.board import Board
from healthagent.core.forced import override_of
from healthagent.core.members import heard, snapshot_of
from healthagent.core.model import Instant, Role, Snapshot, Verdict
from healthagent.core.replica import lag_bytes, lag_seconds
from healthagent.core.view import View
from healthagent.exposition import rendered

PREFIX = "healthagent"
# seconds; a healthy answer over a socket takes one to ten milliseconds, the budget is a second by default
PROBE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
FENCE_RESULTS = ("ok", "failed", "timeout")

Row = tuple[tuple[str, ...], float | None]  # label values, and the value: None when it is not known


def _never_ran() -> int | None:
    return None


def _no_sessions(_now: Instant) -> Mapping[str, int]:
    return {}


def _nothing_more(_now: Instant) -> Iterable[Metric]:
    return ()


@dataclass(frozen=True, slots=True)
class Sources:
    """What others count. It is read here and never written."""

    checks: Mapping[tuple[str, int], int] = field(default_factory=dict)  # (path, status) -> answers
    probe_failures: Mapping[str, int] = field(default_factory=dict)  # reason -> times
    verdict_changes: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (kind, new reason)
    fence_runs: Mapping[str, int] = field(default_factory=dict)  # by FENCE_RESULTS
    callers_refused: Callable[[], int] = int  # by checks.allow
    fence_status: Callable[[], int | None] = _never_ran  # exit status of the last run
    peer_failures: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (peer, kind)
    peer_refusals: Mapping[str, int] = field(default_factory=dict)  # kind -> times
    round_trips: Mapping[str, float] = field(default_factory=dict)  # peer -> seconds of its last call
    haproxy_sessions: Callable[[Instant], Mapping[str, int]] = _no_sessions  # backend/server -> sessions
    alarms: Callable[[], Sequence[str]] = tuple
    tasks: Callable[[], int] = int  # of the event loop: more and more of them is a leak
    more: Callable[[Instant], Iterable[Metric]] = _nothing_more  # families of a part that may be off


class Metrics(Collector):
    """All metrics of one agent; `probe_duration.observe(seconds)` is for whoever probes.

    `more` are scraped as well, as they are.
    """

    def __init__(
        self, board: Board, clock: Callable[[], Instant], sources: Sources, more: Iterable[Collector] = ()
    ) -> None:
        self.probe_duration = Histogram(
            f"{PREFIX}_probe_duration_seconds",
            "How long PostgreSQL took to answer, or to be given up.",
            buckets=PROBE_BUCKETS,
            registry=None,
        )
        self._board = board
        self._clock = clock
        self._sources = sources
        self._process = ProcessCollector(namespace=PREFIX, registry=None)
        self._registry = CollectorRegistry()
        for collector in (self, *more):
            self._registry.register(collector)

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """The body and its Content-Type."""
        return rendered(self._registry, accept)

    def collect(self) -> Iterator[Metric]:
        board, now = self._board, self._clock()
        own = {"cluster": board.identity.cluster, "name": board.identity.name}
        verdicts = {"primary": board.primary(now), "replica": board.replica(now)}
        view = board.view(now)
        for family in chain(
            _verdicts(verdicts),
            _operated(view),
            _postgres(board, view),
            self.probe_duration.collect(),
            _cluster(board, view),
            _peers(board, view, self._sources),
            _lease(),
            _counted(self._sources, now),
            self._sources.more(now),
            self._process.collect(),
        ):
            family.samples = [
                sample._replace(labels={**own, **sample.labels})
                for sample in family.samples
                if not sample.name.endswith("_created")  # would be a series for each counter, asked by nobody
            ]
            yield family


def _gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    return _filled(GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels), rows)


def _counter(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    return _filled(CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[Row]) -> Metric:
    for values, value in rows:
        if value is not None:
            family.add_metric(values, value)
    return family


def _one(name: str, text: str, value: float | None) -> Metric:
    return _gauge(name, text, (), [((), value)])


def _verdicts(verdicts: Mapping[str, Verdict]) -> Iterator[Metric]:
    yield _one("primary", "1 if this node may be given writes: /primary answers 200.", verdicts["primary"].ok)
    yield _one("replica", "1 if this node may be given reads: /replica answers 200.", verdicts["replica"].ok)
    yield _gauge(
        "verdict",
        "1 for the rule that decides now, for each kind of check.",
        ("kind", "reason"),
        [((kind, verdict.reason), 1) for kind, verdict in verdicts.items()],
    )


def _operated(view: View) -> Iterator[Metric]:
    """What an operator has put in force here."""
    now, maintenance, override = view.now, view.memory.maintenance, override_of(view)
    on = maintenance is not None and (maintenance.until is None or now < maintenance.until)
    yield _one("maintenance", "1 while an operator has taken this node out of service.", on)
    yield _one(
        "maintenance_remaining_seconds",
        "Time until maintenance ends by itself; no sample when somebody must end it.",
        maintenance.until - now if on and maintenance and maintenance.until is not None else None,
    )
    yield _gauge(
        "override",
        "1 while an operator's word on /primary is in force: on sets rules aside.",
        ("verdict",),
        [((word,), override is not None and override.on is (word == "on")) for word in ("on", "off")],
    )
    yield _one(
        "override_remaining_seconds",
        "Time until the override ends by itself.",
        override.until - now if override else None,
    )


def _postgres(board: Board, view: View) -> Iterator[Metric]:
    """This node's PostgreSQL; a witness has none, and so no samples."""
    now, policy, local = view.now, board.policy, view.local
    role = board.role(now)
    known = local.snapshot if role is not None else None  # only fresh evidence
    yield _one(
        "postgres_up",
        "1 if fresh evidence shows that PostgreSQL runs, whatever its role.",
        None if policy.witness else board.running(now).ok,
    )
    yield _gauge(
        "role",
        "What PostgreSQL says that it is: 1 for the current role, all 0 while that is unknown.",
        ("role",),
        [((one,), None if policy.witness else one is role) for one in Role],
    )
    yield _one(
        "evidence_age_seconds",
        "Age of the last answer of PostgreSQL, fresh or not.",
        local.snapshot.age(now) if local.snapshot else None,
    )
    yield _one("timeline", "PostgreSQL's timeline.", known.timeline if known else None)
    yield _one(
        "wal_lsn_bytes",
        "How far the WAL reaches: flushed on a primary, replayed on a replica.",
        known.wal_lsn if known else None,
    )
    replica = role is Role.REPLICA
    yield _one(
        "replication_lag_bytes",
        "Bytes of WAL between the newest known anywhere and what is replayed here.",
        lag_bytes(view, policy) if replica else None,
    )
    yield _one(
        "replication_lag_seconds",
        "Age of the last replayed commit, 0 when everything received is replayed.",
        lag_seconds(view, policy) if replica else None,
    )
    refused = local.new_connection_failure
    yield _gauge(
        "new_connection_failed",
        "1 while the last new connection to PostgreSQL failed, by reason; the held one may live.",
        ("reason",),
        [((refused.reason,), 1)] if refused else [],
    )
    yield _gauge(
        "privilege_missing",
        "1 for each thing that the probe's role may not see.",
        ("what",),
        [((what,), 1) for what in (known.missing if known else ())],
    )


def _cluster(board: Board, view: View) -> Iterator[Metric]:
    seen = [snapshot_of(peer, view.now, board.policy) for peer in view.peers if peer.counts]
    if board.role(view.now) is not None:
        seen.append(view.local.snapshot)
    primaries = [one for one in seen if one is not None and one.role is Role.PRIMARY]
    yield _one(
        "cluster_primaries",
        "PostgreSQL primaries in sight, this node's included, serving or not: above 1 is split brain.",
        len(primaries),
    )
    conflict = view.memory.conflict
    yield _one(
        "rivals",
        "Other primaries that this one is in conflict with.",
        len(conflict.rivals) if conflict else 0,
    )
    yield _one(
        "served_high_water_mark",
        "The highest timeline that clients of this cluster were sent to, as far as is known here.",
        _high_water(board, view.local.snapshot),
    )
    members, present = board.members(view.now)
    yield _one("members", "Members of the cluster, this agent and witnesses included.", members)
    yield _one("members_heard", "Members heard lately, this agent included.", present)


def _high_water(board: Board, snapshot: Snapshot | None) -> int | None:
    """The mark of this node's cluster; a witness has no cluster of its own, but mostly knows only one."""
    marks = board.memory.high_water
    own = snapshot.system_identifier if snapshot else board.policy.system_identifier
    if own is not None:
        return marks.get(own)
    return next(iter(marks.values())) if len(marks) == 1 else None


def _peers(board: Board, view: View, sources: Sources) -> Iterator[Metric]:
    now = view.now
    # by the configured entry: what a peer calls itself is not bound to be unique
    yield _gauge(
        "peer_up",
        "1 if this peer's agent was heard lately.",
        ("peer",),
        [((peer.name,), heard(peer, now, board.policy) is not None) for peer in view.peers],
    )
    yield _gauge(
        "peer_evidence_age_seconds",
        "Age of this peer's last accepted answer, counted from the question.",
        ("peer",),
        [((peer.name,), now - peer.statement.asked_at) for peer in view.peers if peer.statement],
    )
    yield _gauge(
        "peer_round_trip_seconds",
        "How long this peer's last answer took.",
        ("peer",),
        [((peer.name,), sources.round_trips.get(peer.name)) for peer in view.peers],
    )
    yield _counter(
        "peer_failures",
        "Questions to this peer that brought no answer, or none that could be read, by kind.",
        ("peer", "kind"),
        [(labels, count) for labels, count in sources.peer_failures.items()],
    )
    yield _counter(
        "peer_refusals",
        "Questions of peers, or of strangers, to /peer that this agent refused, by kind.",
        ("kind",),
        [((kind,), count) for kind, count in sources.peer_refusals.items()],
    )


def _lease() -> Iterator[Metric]:
    """In conflict mode there is no lease: the families are there for dashboards, without samples."""
    yield _one("lease_held", "1 while this agent holds the lease (mode: lease).", None)
    yield _one("lease_remaining_seconds", "How long the held lease is still valid (mode: lease).", None)
    yield _counter("lease_transitions", "How often the lease was won or lost here (mode: lease).", (), [])


def _counted(sources: Sources, now: Instant) -> Iterator[Metric]:
    yield _counter(
        "probe_failures",
        "Times that PostgreSQL could not be asked, or opened no new connection, by reason.",
        ("reason",),
        [((reason,), count) for reason, count in sources.probe_failures.items()],
    )
    yield _counter(
        "verdict_changes",
        "Changes of a verdict, by kind of check and the reason that it changed to.",
        ("kind", "reason"),
        [(labels, count) for labels, count in sources.verdict_changes.items()],
    )
    yield _counter(
        "fence_runs",
        "Runs of fence.command, by result.",
        ("result",),
        [((result,), sources.fence_runs.get(result, 0)) for result in FENCE_RESULTS],
    )
    yield _one(
        "fence_last_exit_status",
        "Exit status of the last run of fence.command, negative for the signal that ended it.",
        sources.fence_status(),
    )
    yield _counter(
        "callers_refused",
        "Requests and agent-checks from addresses that are not in checks.allow.",
        (),
        [((), sources.callers_refused())],
    )
    yield _counter(
        "checks",
        "Answers over HTTP by path and status; `other` is every unknown path.",
        ("path", "code"),
        [((path, str(code)), count) for (path, code), count in sources.checks.items()],
    )
    yield _gauge(
        "haproxy_sessions",
        "Sessions that HAProxy has open to this node, as it says in its checks (http-check send-state).",
        ("server",),
        [((server,), sessions) for server, sessions in sources.haproxy_sessions(now).items()],
    )
    yield _one("alarms", "What needs a person; /status has the sentences.", len(sources.alarms()))
    yield _one("tasks", "Tasks of the agent's event loop: connections, peers and the probe.", sources.tasks())
    build = InfoMetricFamily(f"{PREFIX}_build", "The version of this agent, and of its Python.")
    build.add_metric((), {"version": __version__, "python": platform.python_version()})
    yield build
