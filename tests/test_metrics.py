"""What a scrape says, read back by prometheus_client's own parsers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as read_text

from healthagent.board import Board
from healthagent.core.model import Failure, Reason, Snapshot
from healthagent.core.peer import Peer
from healthagent.metrics import Metrics, Sources
from tests.bed.boards import PRIMARY, START, SYSTEM, Clock, board, replica, says

FAMILIES = {
    "primary": "gauge",
    "replica": "gauge",
    "verdict": "gauge",
    "postgres_up": "gauge",
    "role": "gauge",
    "evidence_age_seconds": "gauge",
    "timeline": "gauge",
    "wal_lsn_bytes": "gauge",
    "replication_lag_bytes": "gauge",
    "replication_lag_seconds": "gauge",
    "new_connection_failed": "gauge",
    "privilege_missing": "gauge",
    "maintenance": "gauge",
    "maintenance_remaining_seconds": "gauge",
    "override": "gauge",
    "override_remaining_seconds": "gauge",
    "probe_duration_seconds": "histogram",
    "probe_failures_total": "counter",
    "cluster_primaries": "gauge",
    "rivals": "gauge",
    "served_high_water_mark": "gauge",
    "members": "gauge",
    "members_heard": "gauge",
    "peer_up": "gauge",
    "peer_evidence_age_seconds": "gauge",
    "peer_round_trip_seconds": "gauge",
    "peer_failures_total": "counter",
    "peer_refusals_total": "counter",
    "lease_held": "gauge",
    "lease_remaining_seconds": "gauge",
    "lease_transitions_total": "counter",
    "verdict_changes_total": "counter",
    "fence_runs_total": "counter",
    "fence_last_exit_status": "gauge",
    "callers_refused_total": "counter",
    "checks_total": "counter",
    "haproxy_sessions": "gauge",
    "alarms": "gauge",
    "tasks": "gauge",
    "build_info": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_cpu_seconds_total": "counter",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
}
OWN = {"cluster": "main", "name": "pg1"}
FULL = Sources(
    checks=Counter({("/primary", 200): 7, ("other", 404): 1}),
    probe_failures=Counter({Reason.POSTGRES_DOWN: 2}),
    verdict_changes=Counter({("primary", Reason.PRIMARY): 3}),
    fence_runs=Counter(failed=1),
    fence_status=lambda: 3,
    peer_failures=Counter({("pg2", "timeout"): 4}),
    peer_refusals=Counter(forged=5),
    round_trips={"pg2": 0.25},
    haproxy_sessions=lambda now: {"pg_primary/pg1": int(now - START)},
    alarms=lambda: ["state: the disk is full"],
)

Series = dict[str, float]  # `name{label="value"}` without prefix, cluster and name -> value


def scraped(made: Board, sources: Sources | None = None, now: float = START) -> Series:
    body, _ = Metrics(made, Clock(now), sources or Sources()).render(None)
    return series(read_text(body.decode()))


def series(families: Iterable[Metric]) -> Series:
    found: Series = {}
    for family in families:
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name not in OWN}
            spelled = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
            key = sample.name.removeprefix("healthagent_") + (f"{{{spelled}}}" if spelled else "")
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def read_openmetrics(body: str) -> Iterable[Metric]:
    families: Iterable[Metric] = openmetrics_parser.text_string_to_metric_families(body)  # type: ignore[no-untyped-call]  # it has no annotations
    return families


def of(found: Series, *names: str) -> Series:
    return {key: value for key, value in found.items() if key.partition("{")[0] in names}


def with_peers(*names: str) -> Board:
    return board(PRIMARY, peers=tuple(Peer(name) for name in names))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(board(None), id="nothing is known yet"),
        pytest.param(board(None, witness=True), id="a witness"),
        pytest.param(board(PRIMARY), id="a primary alone"),
        pytest.param(board(replica(), peers=(Peer("pg2"),)), id="a replica with a peer"),
    ],
)
def test_every_family_is_described_with_or_without_samples(made: Board) -> None:
    lines = Metrics(made, Clock(), Sources()).render(None)[0].decode().splitlines()
    types = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))
    helped = [line.split()[2] for line in lines if line.startswith("# HELP ")]
    assert types == {f"healthagent_{name}": kind for name, kind in FAMILIES.items()}
    assert sorted(helped) == sorted(types)


def test_every_series_says_whose_it_is() -> None:
    body, _ = Metrics(with_peers("pg2"), Clock(), FULL).render(None)
    for family in read_text(body.decode()):
        for sample in family.samples:
            assert sample.labels.items() >= OWN.items()
            assert sample.name.startswith("healthagent_")


def test_a_primary() -> None:
    found = scraped(board(PRIMARY), now=START + 0.5)
    assert of(found, "primary", "replica", "postgres_up", "timeline", "wal_lsn_bytes") == {
        "primary": 1,
        "replica": 0,
        "postgres_up": 1,
        "timeline": 3,
        "wal_lsn_bytes": 0x4000060,
    }
    assert of(found, "verdict") == {
        'verdict{kind="primary",reason="primary"}': 1,
        'verdict{kind="replica",reason="not_replica"}': 1,
    }
    assert of(found, "role") == {'role{role="primary"}': 1, 'role{role="replica"}': 0}
    assert found["evidence_age_seconds"] == 0.5
    assert of(found, "replication_lag_bytes", "replication_lag_seconds") == {}
    assert of(found, "cluster_primaries", "rivals", "members", "members_heard") == {
        "cluster_primaries": 1,
        "rivals": 0,
        "members": 1,
        "members_heard": 1,
    }


def test_a_replica_and_its_lag() -> None:
    found = scraped(board(replica(behind=4096, late=2.0)), now=START + 1)
    assert of(found, "primary", "replica", "cluster_primaries") == {
        "primary": 0,
        "replica": 1,
        "cluster_primaries": 0,
    }
    assert of(found, "replication_lag_bytes", "replication_lag_seconds", "wal_lsn_bytes") == {
        "replication_lag_bytes": 4096,
        "replication_lag_seconds": 3.0,
        "wal_lsn_bytes": 0x4000060 - 4096,
    }


def test_a_replica_that_has_replayed_all_lags_nothing() -> None:
    assert scraped(board(replica(late=3600.0)))["replication_lag_seconds"] == 0


@pytest.mark.parametrize("snapshot", [PRIMARY, replica(behind=4096, late=2.0)], ids=["primary", "replica"])
def test_stale_evidence_has_an_age_and_no_values(snapshot: Snapshot) -> None:
    found = scraped(board(snapshot), now=START + 2.1)
    assert of(found, "primary", "replica", "postgres_up", "cluster_primaries") == {
        "primary": 0,
        "replica": 0,
        "postgres_up": 0,
        "cluster_primaries": 0,
    }
    assert 'verdict{kind="primary",reason="postgres_stale"}' in found
    assert of(found, "role") == {'role{role="primary"}': 0, 'role{role="replica"}': 0}
    assert found["evidence_age_seconds"] == pytest.approx(2.1)
    assert of(found, "timeline", "wal_lsn_bytes", "replication_lag_bytes", "replication_lag_seconds") == {}


def test_a_witness_has_no_postgresql_to_be_down() -> None:
    found = scraped(board(None, witness=True))
    assert of(found, "postgres_up", "role", "timeline", "evidence_age_seconds") == {}
    assert of(found, "primary", "members") == {"primary": 0, "members": 1}


def test_a_scrape_sees_the_moment_it_asks_about() -> None:
    clock = Clock()
    metrics = Metrics(board(PRIMARY), clock, Sources())
    assert series(read_text(metrics.render(None)[0].decode()))["primary"] == 1
    clock.now = START + 2.1
    assert series(read_text(metrics.render(None)[0].decode()))["primary"] == 0


def test_two_primaries_are_split_brain_in_the_metrics_of_both() -> None:
    made = with_peers("pg2", "pg3")
    made.hear("pg2", says("pg2", PRIMARY), START)
    made.hear("pg3", says("pg3", replica()), START)
    found = scraped(made)
    assert of(found, "cluster_primaries", "rivals") == {"cluster_primaries": 2, "rivals": 1}


def test_a_stale_primary_is_no_rival_but_counts_as_a_primary() -> None:
    made = with_peers("pg2")
    made.memory = replace(made.memory, high_water={SYSTEM: 3})
    made.hear("pg2", says("pg2", replace(PRIMARY, timeline=2)), START)
    found = scraped(made)
    assert of(found, "cluster_primaries", "rivals", "served_high_water_mark") == {
        "cluster_primaries": 2,
        "rivals": 0,
        "served_high_water_mark": 3,
    }


def test_an_entry_that_leads_back_to_this_node_is_no_second_primary() -> None:
    made = with_peers("pg2")
    made.hear("pg2", replace(says("pg2", PRIMARY), incarnation=made.identity.incarnation), START)
    made.ask_directly("pg2", PRIMARY, START)
    assert of(scraped(made), "cluster_primaries", "members") == {"cluster_primaries": 1, "members": 1}


def test_a_silent_agents_primary_that_was_asked_itself_counts() -> None:
    made = with_peers("pg2")
    made.ask_directly("pg2", PRIMARY, START)
    assert of(scraped(made), "cluster_primaries", "members_heard") == {
        "cluster_primaries": 2,
        "members_heard": 1,
    }


def test_peers_heard_and_silent() -> None:
    made = with_peers("pg2", "pg3")
    made.hear("pg2", says("pg2", replica()), START)
    found = scraped(made, FULL, START + 2.0)
    assert of(found, "peer_up", "peer_evidence_age_seconds", "peer_round_trip_seconds") == {
        'peer_up{peer="pg2"}': 1,
        'peer_up{peer="pg3"}': 0,
        'peer_evidence_age_seconds{peer="pg2"}': 2.0,
        'peer_round_trip_seconds{peer="pg2"}': 0.25,
    }
    assert of(found, "members", "members_heard") == {"members": 3, "members_heard": 2}
    found = scraped(made, FULL, START + 2.1)
    assert found['peer_up{peer="pg2"}'] == 0
    assert found["members_heard"] == 1


def test_a_peer_that_left_the_list_is_gone() -> None:
    made = with_peers("pg2", "pg3")
    made.replace_peers([Peer("pg3")], START)
    found = of(scraped(made, FULL), "peer_up", "peer_round_trip_seconds")
    assert found == {'peer_up{peer="pg3"}': 0}


def test_two_entries_of_one_agent_are_two_series() -> None:
    made = board(
        PRIMARY, peers=(Peer("10.0.0.2:8008", discovered=True), Peer("10.0.0.3:8008", discovered=True))
    )
    for entry in made.peers:
        made.hear(entry, says("pg2", replica()), START)
    assert set(of(scraped(made), "peer_up")) == {
        'peer_up{peer="10.0.0.2:8008"}',
        'peer_up{peer="10.0.0.3:8008"}',
    }


@pytest.mark.parametrize(
    ("marks", "mark"),
    [
        pytest.param({}, {}, id="it knows none"),
        pytest.param({SYSTEM: 5}, {"served_high_water_mark": 5}, id="it knows one cluster"),
        pytest.param({SYSTEM: 5, SYSTEM + 1: 9}, {}, id="it cannot tell whose mark is meant"),
    ],
)
def test_the_mark_of_an_agent_that_has_never_seen_its_postgresql(marks: dict[int, int], mark: Series) -> None:
    made = board(None)
    made.memory = replace(made.memory, high_water=marks)
    assert of(scraped(made), "served_high_water_mark") == mark


def test_the_mark_of_another_cluster_is_not_this_ones() -> None:
    made = board(replica())
    made.memory = replace(made.memory, high_water={SYSTEM + 1: 9})
    assert of(scraped(made), "served_high_water_mark") == {}


def test_what_others_count() -> None:
    found = scraped(board(PRIMARY), FULL, START + 1)
    assert of(
        found,
        "checks_total",
        "probe_failures_total",
        "verdict_changes_total",
        "fence_runs_total",
        "fence_last_exit_status",
        "peer_failures_total",
        "peer_refusals_total",
        "haproxy_sessions",
        "alarms",
        "lease_held",
        "lease_remaining_seconds",
        "lease_transitions_total",
    ) == {
        'checks_total{code="200",path="/primary"}': 7,
        'checks_total{code="404",path="other"}': 1,
        'probe_failures_total{reason="postgres_down"}': 2,
        'verdict_changes_total{kind="primary",reason="primary"}': 3,
        'fence_runs_total{result="ok"}': 0,
        'fence_runs_total{result="failed"}': 1,
        'fence_runs_total{result="timeout"}': 0,
        "fence_last_exit_status": 3,
        'peer_failures_total{kind="timeout",peer="pg2"}': 4,
        'peer_refusals_total{kind="forged"}': 5,
        'haproxy_sessions{server="pg_primary/pg1"}': 1,
        "alarms": 1,
    }


def test_what_the_probe_cannot_do() -> None:
    made = board(replace(PRIMARY, missing=("pg_stat_replication",)))
    slots = Failure(Reason.NO_CONNECTION_SLOT, "too many clients already", START)
    made.observe_new_connection(slots, START)
    found = scraped(made)
    assert of(found, "new_connection_failed", "privilege_missing", "postgres_up") == {
        'new_connection_failed{reason="no_connection_slot"}': 1,
        'privilege_missing{what="pg_stat_replication"}': 1,
        "postgres_up": 1,
    }
    made.observe_new_connection(None, START)
    assert of(scraped(made), "new_connection_failed") == {}


def test_probe_durations_are_a_histogram() -> None:
    metrics = Metrics(board(PRIMARY), Clock(), Sources())
    for seconds in (0.002, 0.0025, 0.7):
        metrics.probe_duration.observe(seconds)
    found = series(read_text(metrics.render(None)[0].decode()))
    assert found["probe_duration_seconds_count"] == 3
    assert found["probe_duration_seconds_sum"] == pytest.approx(0.7045)
    assert found['probe_duration_seconds_bucket{le="0.001"}'] == 0
    assert found['probe_duration_seconds_bucket{le="0.0025"}'] == 2
    assert found['probe_duration_seconds_bucket{le="0.5"}'] == 2
    assert found['probe_duration_seconds_bucket{le="+Inf"}'] == 3


HOSTILE = ['quote"', "back\\slash", "new\nline", "\\n", '",evil="1', "größe 😀", "{}", "a b"]


@pytest.mark.parametrize("accept", [None, "application/openmetrics-text"], ids=["text", "openmetrics"])
def test_hostile_names_are_labels_like_any_other(accept: str | None) -> None:
    cluster = "".join(HOSTILE)
    made = board(PRIMARY, name='n\n\\"', cluster=cluster, peers=tuple(Peer(name) for name in HOSTILE))
    body = Metrics(made, Clock(), Sources()).render(accept)[0].decode()
    read = read_openmetrics if accept else read_text
    samples = [sample for family in read(body) for sample in family.samples]
    assert {sample.labels["cluster"] for sample in samples} == {cluster}
    assert {sample.labels["name"] for sample in samples} == {'n\n\\"'}
    peers = [sample.labels["peer"] for sample in samples if sample.name == "healthagent_peer_up"]
    assert peers == HOSTILE


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        pytest.param(None, False, id="no header"),
        pytest.param("", False, id="an empty header"),
        pytest.param("*/*", False, id="curl"),
        pytest.param("text/plain; version=nonsense", False, id="text of an unknown version"),
        pytest.param("application/openmetrics-textual", False, id="another type that begins alike"),
        pytest.param(PROMETHEUS_2, True, id="Prometheus 2"),
        pytest.param(PROMETHEUS_3, True, id="Prometheus 3"),
        pytest.param("text/html, application/openmetrics-text", True, id="no version"),
        pytest.param("application/openmetrics-text; version=nonsense", True, id="an unknown version"),
        pytest.param(
            "application/openmetrics-text; version=1.0.0\r\nX: y", True, id="a header in the header"
        ),
    ],
)
def test_the_format_is_the_one_that_is_accepted(accept: str | None, openmetrics: bool) -> None:
    body, content_type = Metrics(with_peers("pg2"), Clock(), FULL).render(accept)
    if openmetrics:
        assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert body.endswith(b"# EOF\n")
    else:
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"
        assert b"# EOF" not in body


def test_both_formats_say_the_same() -> None:
    metrics = Metrics(with_peers("pg2"), Clock(), FULL)
    text, openmetrics = (metrics.render(accept)[0].decode() for accept in (None, PROMETHEUS_2))
    first, second = series(read_text(text)), series(read_openmetrics(openmetrics))
    assert first.keys() == second.keys()
    differing = {key for key in first if first[key] != second[key]}
    assert all(key.startswith("process_") for key in differing)
