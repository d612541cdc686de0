"""What is answered on which path, by whom: the table of questions over real boards."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from healthagent.board import Board
from healthagent.core.model import Failure, Follower, LagLimit, Reason, Snapshot, Tag
from healthagent.core.peer import Peer
from healthagent.core.view import Maintenance
from healthagent.server.answers import CHECKS, MAX_RENDERED, Answer, Answers
from healthagent.statefile import Switch
from tests.bed.boards import PRIMARY, START, board, replica, says

PRIMARY_PATHS = ("/", "/primary", "/read-write", "/master", "/leader")
MB = 1 << 20


def asked(of: Board, question: str, now: float = START) -> Answer:
    """The answer to PATH?QUERY."""
    path, _, query = question.partition("?")
    answer = Answers(of).answer(path, query, now)
    assert answer is not None, path
    return answer


def said(of: Board, question: str, now: float = START) -> tuple[int, str | None]:
    """Status and reason."""
    answer = asked(of, question, now)
    return answer.status, answer.reason


def body(of: Board, question: str, now: float = START) -> Any:
    return msgspec.json.decode(asked(of, question, now).body)


def tagged(snapshot: Snapshot, tags: Mapping[str, Tag]) -> Board:
    made = board(snapshot)
    made.identity = replace(made.identity, tags=tags)
    made.policy = replace(made.policy, no_load_balance=tags.get("noloadbalance") is True)
    return made


def attached(sync_state: str | None, replication: str = "pg2", **more: Any) -> Board:
    """The replica pg2, and a primary pg1 that calls it `sync_state`; None: it does not list it."""
    followers = () if sync_state is None else (follower(replication, sync_state),)
    made = board(replace(replica(), **more), name="pg2", peers=(Peer("pg1"),))
    made.hear("pg1", says("pg1", replace(PRIMARY, followers=followers), serving=True), START)
    return made


def follower(name: str, sync_state: str) -> Follower:
    return Follower("replicator", name, "127.0.0.1", "streaming", sync_state, 1)


def failing(reason: Reason, snapshot: Snapshot | None = PRIMARY) -> Board:
    made = board(snapshot)
    made.observe_failure(Failure(reason, "as the test says", START), START)
    return made


# path -> a primary's answer, a streaming replica's
HEALTHY = {
    **dict.fromkeys(PRIMARY_PATHS, ((200, "primary"), (503, "not_primary"))),
    "/replica": ((503, "not_replica"), (200, "replica")),
    "/read-only": ((200, "primary"), (200, "replica")),
    "/synchronous": ((503, "not_replica"), (503, "sync_unknown")),
    "/sync": ((503, "not_replica"), (503, "sync_unknown")),
    "/asynchronous": ((503, "not_replica"), (503, "sync_unknown")),
    "/async": ((503, "not_replica"), (503, "sync_unknown")),
    "/quorum": ((503, "not_replica"), (503, "sync_unknown")),
    "/read-only-sync": ((200, "primary"), (503, "sync_unknown")),
    "/read-only-synchronous": ((200, "primary"), (503, "sync_unknown")),
    "/read-only-quorum": ((200, "primary"), (503, "sync_unknown")),
    "/standby-leader": ((503, "not_standby_leader"), (503, "not_standby_leader")),
    "/standby_leader": ((503, "not_standby_leader"), (503, "not_standby_leader")),
    "/health": ((200, "running"), (200, "running")),
    "/readiness": ((200, "primary"), (200, "replica")),
    "/liveness": ((200, "running"), (200, "running")),
}


def test_every_check_has_a_row_here() -> None:
    assert HEALTHY.keys() == CHECKS.keys()


@pytest.mark.parametrize("path", HEALTHY)
def test_a_healthy_node_alone(path: str) -> None:
    of_primary, of_replica = HEALTHY[path]
    assert said(board(PRIMARY), path) == of_primary
    assert said(board(replica()), path) == of_replica


@pytest.mark.parametrize("path", [path for path in CHECKS if path not in ("/liveness", "/standby-leader")])
@pytest.mark.parametrize(
    ("made", "reason", "health"),
    [
        pytest.param(board(None), "starting_up", (503, "starting_up"), id="not asked yet"),
        pytest.param(failing(Reason.POSTGRES_DOWN), "postgres_down", (503, "postgres_down"), id="down"),
        pytest.param(failing(Reason.POSTGRES_STARTING), "postgres_starting", None, id="starting"),
        pytest.param(failing(Reason.AUTH_FAILED, None), "auth_failed", None, id="wrong password"),
        pytest.param(board(None, witness=True), "witness", (503, "witness"), id="a witness"),
    ],
)
def test_nothing_is_served_without_evidence(
    made: Board, reason: str, health: tuple[int, str] | None, path: str
) -> None:
    expected = (503, "not_standby_leader") if path == "/standby_leader" else (503, reason)
    if path == "/health" and health is not None:
        expected = health
    assert said(made, path) == expected
    assert said(made, "/liveness") == (200, "running")


@pytest.mark.parametrize("path", [path for path in CHECKS if path not in ("/liveness", "/health")])
def test_an_operator_and_the_end_take_every_kind_of_traffic_away(path: str) -> None:
    for made, reason in ((board(PRIMARY), "maintenance"), (board(replica()), "maintenance")):
        made.maintain(Maintenance(START + 60), START)
        standby_leader = path in ("/standby-leader", "/standby_leader")
        assert said(made, path) == (503, "not_standby_leader" if standby_leader else reason)
        made.stop(START)
        assert said(made, path) == (503, "not_standby_leader" if standby_leader else "stopping")
        assert said(made, "/health") == (200, "running")
        assert said(made, "/liveness") == (200, "running")


def test_old_evidence_is_none() -> None:
    made = board(PRIMARY)
    assert said(made, "/primary", START + 2.0) == (200, "primary")
    assert said(made, "/primary", START + 2.001) == (503, "postgres_stale")
    assert said(made, "/health", START + 2.001) == (503, "postgres_stale")
    assert said(made, "/liveness", START + 1000) == (200, "running")


@pytest.mark.parametrize(
    ("state", "ok"),
    [
        pytest.param("sync", {"/sync", "/synchronous", "/read-only-sync", "/read-only-synchronous"}),
        pytest.param("quorum", {"/quorum", "/read-only-quorum"}),
        pytest.param("async", {"/async", "/asynchronous"}),
        pytest.param("potential", {"/async", "/asynchronous"}),
        pytest.param(None, set(), id="not listed"),
    ],
)
def test_how_a_replica_is_attached_is_the_word_of_its_primary(state: str | None, ok: set[str]) -> None:
    made = attached(state)
    paths = [path for path in CHECKS if "sync" in path or "quorum" in path]
    assert {path for path in paths if said(made, path)[0] == 200} == ok
    shown = body(made, "/patroni")
    assert [shown.get(f"{kind}_standby") for kind in ("sync", "quorum")] == [
        True if state == kind else None for kind in ("sync", "quorum")
    ]


def test_a_namesake_in_the_list_is_not_believed() -> None:
    assert said(attached("sync", replication="pg3"), "/sync") == (503, "sync_unknown")


LAGGING = "/replica", "/read-only", "/async", "/readiness"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param("lag=1MB", 200, id="at the limit"),
        pytest.param("lag=1048575", 503, id="one byte above the limit"),
        pytest.param("lag=3s", 200, id="late by as much as the limit"),
        pytest.param("lag=2999ms", 503, id="later than the limit"),
        pytest.param("lag=0", 503, id="none is wanted"),
    ],
)
@pytest.mark.parametrize("path", LAGGING)
def test_lag(path: str, query: str, status: int) -> None:
    made = board(replica(behind=MB, late=3.0), name="pg2", peers=(Peer("pg1"),))
    made.hear("pg1", says("pg1", replace(PRIMARY, followers=(follower("pg2", "async"),))), START)
    reason = "lagging" if status == 503 else "replica"
    assert said(made, f"{path}?{query}") == (status, reason)
    assert said(made, path) == (200, "replica")


def test_a_primary_has_no_lag() -> None:
    for path in (*PRIMARY_PATHS, "/read-only", "/readiness"):
        assert said(board(PRIMARY), f"{path}?lag=0") == (200, "primary")


def test_readiness_can_ask_for_what_was_written_rather_than_applied() -> None:
    made = board(replica(behind=MB))
    assert said(made, "/readiness?lag=0") == (503, "lagging")
    assert said(made, "/readiness?lag=0&mode=apply") == (503, "lagging")
    assert said(made, "/readiness?lag=0&mode=write") == (200, "replica")


def test_readiness_uses_the_configured_limit_without_hold_and_another_one_instead() -> None:
    made = board(replica(behind=MB), LagLimit(lag_bytes=0))
    assert said(made, "/readiness") == (503, "lagging")
    assert said(made, "/readiness?lag=1GB") == (200, "replica")
    assert said(made, "/replica?lag=1GB") == (503, "lagging")
    made.observe(replica(asked_at=START + 1), START + 1)
    assert said(made, "/readiness", START + 1) == (200, "replica")
    assert said(made, "/replica", START + 1) == (503, "lagging")


def test_readiness_ignores_tags() -> None:
    made = tagged(replica(), {"noloadbalance": True})
    assert said(made, "/readiness") == (200, "replica")
    assert said(made, "/readiness?tag_zone=az1") == (200, "replica")
    assert said(made, "/health") == (200, "running")
    for path in ("/replica", "/read-only", "/async", "/sync", "/quorum"):
        assert said(made, path) == (503, "no_load_balance")


def test_a_primary_with_noloadbalance_serves_reads_as_ever() -> None:
    assert said(tagged(PRIMARY, {"noloadbalance": True}), "/read-only") == (200, "primary")


TAGS: dict[str, Tag] = {"zone": "az1", "weight": 20, "ssd": True, "load": 1.5, "nosync": False, "Big": "X"}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param("tag_zone=az1", 200, id="equal"),
        pytest.param("tag_zone=AZ1", 503, id="a text keeps its case"),
        pytest.param("tag_zone=az2", 503, id="another value"),
        pytest.param("tag_zone=", 503, id="an empty value is a value"),
        pytest.param("tag_weight=20", 200, id="a number"),
        pytest.param("tag_weight=20.0", 503, id="a number is compared as text"),
        pytest.param("tag_load=1.5", 200, id="a fraction"),
        pytest.param("tag_ssd=true", 200, id="a flag is lower case"),
        pytest.param("tag_ssd=True", 503, id="a flag is not capitalised"),
        pytest.param("tag_Big=X", 200, id="names keep their case"),
        pytest.param("tag_big=X", 503, id="another name"),
        pytest.param("tag_missing=x", 503, id="no such tag"),
        pytest.param("tag_nosync=false", 503, id="a false flag of Patroni's is not there"),
        pytest.param("tag_zone=az1&tag_ssd=true", 200, id="both"),
        pytest.param("tag_zone=az1&tag_ssd=false", 503, id="all must agree"),
    ],
)
def test_tags(query: str, status: int) -> None:
    follows, leads = tagged(replica(), TAGS), tagged(PRIMARY, TAGS)
    differs = (503, "tag_differs")
    assert said(follows, f"/replica?{query}") == ((200, "replica") if status == 200 else differs)
    for made in (follows, leads):
        assert said(made, f"/health?{query}") == ((200, "running") if status == 200 else differs)
    assert said(leads, f"/read-only?{query}") == ((200, "primary") if status == 200 else differs)
    for path in PRIMARY_PATHS:
        assert said(leads, f"{path}?{query}") == (200, "primary")


def test_a_refusal_keeps_its_own_reason_whatever_the_tags() -> None:
    assert said(tagged(PRIMARY, TAGS), "/replica?tag_zone=az2") == (503, "not_replica")


def test_the_replication_state_that_is_asked_for() -> None:
    streams = board(replica())
    restores = board(replace(replica(), receiver=None, restores_from_archive=True))
    silent = board(replace(replica(), receiver=None))
    for question, one, two in (
        ("streaming", (200, "replica"), (503, "replication_state_differs")),
        ("in%20archive%20recovery", (503, "replication_state_differs"), (200, "replica_no_primary")),
    ):
        assert said(streams, f"/replica?replication_state={question}") == one
        assert said(restores, f"/replica?replication_state={question}") == two
        assert said(silent, f"/replica?replication_state={question}")[0] == 503


@pytest.mark.parametrize("path", CHECKS)
@pytest.mark.parametrize("query", ["lag=1mb", "lag=", "replication_state=x", "mode=x"])
def test_what_cannot_be_understood_is_refused_on_every_check(path: str, query: str) -> None:
    answer = asked(board(PRIMARY), f"{path}?{query}")
    assert (answer.status, answer.reason) == (400, None)
    assert "want" in msgspec.json.decode(answer.body)["error"]


def test_unknown_paths_are_not_of_this_table() -> None:
    for path in ("/nosuch", "/Primary", "/primaryfoo", "//primary", "/primary/x", ""):
        assert Answers(board(PRIMARY)).answer(path, "", START) is None


def test_documents_are_always_200() -> None:
    for made in (board(None), board(PRIMARY), failing(Reason.POSTGRES_DOWN), board(None, witness=True)):
        for path in ("/patroni", "/cluster", "/history", "/status", "/lease"):
            assert said(made, path) == (200, None)


def test_the_body_names_the_verdict_that_was_asked_for() -> None:
    made = board(replica(behind=MB))
    assert body(made, "/primary")["verdict"] == {
        "primary": False,
        "replica": True,
        "reason": "not_primary",
        "detail": "PostgreSQL is in recovery: a replica",
    }
    assert body(made, "/replica?lag=0")["verdict"] == {
        "primary": False,
        "replica": True,
        "reason": "lagging",
        "detail": "1048576 bytes behind, at most 0 bytes is wanted",
    }
    assert body(made, "/patroni")["verdict"]["reason"] == "replica"
    assert body(board(PRIMARY), "/patroni")["verdict"]["reason"] == "primary"


def test_a_rendered_body_is_used_again_only_while_all_in_it_holds() -> None:
    made = board(PRIMARY)
    answers = Answers(made)

    def liveness(now: float) -> Any:
        answer = answers.answer("/liveness", "", now)
        assert answer is not None
        return answer, msgspec.json.decode(answer.body)

    first, shown = liveness(START)
    assert (shown["state"], shown["verdict"]["primary"]) == ("running", True)
    assert liveness(START + 1)[0] is first
    _late, shown = liveness(START + 3)  # nothing was heard meanwhile: time alone has changed the verdict
    assert (shown["state"], shown["verdict"]["primary"]) == ("unknown", False)
    made.observe(
        replace(PRIMARY, asked_at=START + 3, flush_lsn=PRIMARY.flush_lsn and PRIMARY.flush_lsn + 1), START + 3
    )
    assert liveness(START + 3)[1]["xlog"] == {"location": 0x4000061}


def test_rendered_bodies_are_bounded() -> None:
    made = board(replica(behind=1000))
    answers = Answers(made)
    for limit in range(3 * MAX_RENDERED):
        answer = answers.answer("/replica", f"lag={limit}", START)
        assert answer is not None
        assert f"at most {limit} bytes" in msgspec.json.decode(answer.body)["verdict"]["detail"]
    assert len(answers._rendered) <= MAX_RENDERED


def test_history_is_a_list_of_lists() -> None:
    answers = Answers(board(PRIMARY))
    answers.history = [Switch(1, 67108960, "timeline switch", "2026-11-21T20:06:33+00:00", "pg2")]
    answer = answers.answer("/history", "", START)
    assert answer is not None
    assert msgspec.json.decode(answer.body) == [
        [1, 67108960, "timeline switch", "2026-11-21T20:06:33+00:00", "pg2"]
    ]
