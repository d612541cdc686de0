"""The bridge's smaller rules: assignment, settings in conflict, readiness, the status file, promotion."""

import re
from pathlib import Path

import pytest

from healthagent.config import PgpoolSyncSettings
from healthagent.core.model import Role
from healthagent.pgpool import statusfile
from healthagent.pgpool.agents import Answer, Silent, StatusSaid, VerdictSaid, VerdictsSaid
from healthagent.pgpool.assignment import answered_wrongly, assign, known_before
from healthagent.pgpool.conflicts import command_vetoes, conflicts, search_seconds
from healthagent.pgpool.model import Backend, LiveInfo, Observed, Says, Status, Told
from healthagent.pgpool.promotion import objections
from healthagent.pgpool.readiness import Look, mismatched, readiness

SHIPPED = Path(__file__).parents[1] / "pgpool"
PRIMARY, REPLICA, REFUSED, UNKNOWN = Says.PRIMARY, Says.REPLICA, Says.REFUSED, Says.UNKNOWN
UNDECIDED = Says.UNDECIDED


def settings(*hosts: str, **backends: int) -> PgpoolSyncSettings:
    """Agents pg1, pg2, ... on these hosts."""
    agents = tuple((f"pg{number}", f"http://{host}:8008") for number, host in enumerate(hosts, start=1))
    return PgpoolSyncSettings(agents=agents, backends=tuple(backends.items()))


def backends(*hosts: str) -> list[Backend]:
    return [Backend(index, host, 5432, Status.UP, index == 0) for index, host in enumerate(hosts)]


@pytest.mark.parametrize(
    ("given", "hosts", "expected"),
    [
        pytest.param(settings("a", "b", pg1=1, pg2=0), ["x", "y"], {1: "pg1", 0: "pg2"}, id="as given"),
        pytest.param(settings("a", "b"), ["b", "a"], {1: "pg1", 0: "pg2"}, id="by host, whatever the order"),
        pytest.param(settings("a"), ["b", "A"], {1: "pg1"}, id="by host: fewer agents than backends"),
        pytest.param(settings("a", "b"), ["x", "y"], {0: "pg1", 1: "pg2"}, id="no host is known: in order"),
        pytest.param(settings("a", "a"), ["a", "a"], {0: "pg1", 1: "pg2"}, id="all on one host: in order"),
        pytest.param(
            settings("a", "b", "w", pg1=1, pg2=0), ["x", "y"], {1: "pg1", 0: "pg2"}, id="and a witness"
        ),
        pytest.param(
            settings("a", "b", pg1=0), ["a", "b"], {0: "pg1"}, id="given for one: nothing is guessed"
        ),
    ],
)
def test_assignment(given: PgpoolSyncSettings, hosts: list[str], expected: dict[int, str]) -> None:
    assert assign(given, backends(*hosts)) == (expected, [])


@pytest.mark.parametrize(
    ("given", "hosts", "problem"),
    [
        pytest.param(
            settings("a", "b", pg1=0, pg2=2), ["x", "y"], "no backend 2, only 0 to 1", id="out of range"
        ),
        pytest.param(settings("a", "b"), ["x", "y", "z"], "2 for 3 backends", id="in order, but not as many"),
        pytest.param(
            settings("a", "b", "w"), ["a", "b"], "one without an index, as a witness", id="a witness too many"
        ),
        pytest.param(
            settings("a", "b"), ["y", "a"], "only a are hosts", id="some hosts fit: order would be wrong"
        ),
    ],
)
def test_assignment_that_is_refused(given: PgpoolSyncSettings, hosts: list[str], problem: str) -> None:
    [said] = assign(given, backends(*hosts))[1]
    assert problem in said


def test_the_bridge_fits_beside_haproxy_and_an_agent_on_one_machine() -> None:
    haproxy = (SHIPPED.parent / "haproxy/haproxy.cfg").read_text()
    taken = {int(port) for port in re.findall(r"(?:bind \S*:|agent-port |check port )(\d+)", haproxy)}
    listen = PgpoolSyncSettings().listen
    assert listen is not None
    assert {8008, 8009, 8010} <= taken
    assert listen.port not in taken
    assert f"listen: {listen}" in (SHIPPED / "pgpool-sync.yaml").read_text()


def test_what_is_wrong_before_anybody_is_asked() -> None:
    assert known_before(settings("a", "b", pg1=0, pg7=1, pg8=2)) == [
        "pgpool_sync.backends.pg7: no agent has this name (there are pg1, pg2)",
        "pgpool_sync.backends.pg8: no agent has this name (there are pg1, pg2)",
    ]
    assert known_before(settings()) == ["pgpool_sync.agents: want at least one (--agent NAME=URL)"]
    assert known_before(settings("a")) == []


def said(role: Role | None, reason: str = "x", *, name: str = "pg1", cluster: str = "main") -> Answer:
    verdict = VerdictSaid(ok=False, reason=reason)
    return StatusSaid(name, cluster, VerdictsSaid(verdict, verdict), role)


def test_agents_of_several_clusters() -> None:
    answers = {"pg1": said(None), "pg2": said(None, name="pg2", cluster="other"), "pg3": Silent("x")}
    assert answered_wrongly(None, answers) == [
        "pgpool_sync.agents: they belong to several clusters: pg1 of 'main', pg2 of 'other'"
    ]
    assert answered_wrongly("main", answers) == [
        "pgpool_sync.agents.pg2: it belongs to the cluster 'other', not 'main'"
    ]


P, R = said(Role.PRIMARY, "diverged"), said(Role.REPLICA)
GONE, DOWN, HANGS, WITNESS = (
    Silent("x"), said(None, "postgres_down"), said(None, "postgres_stale"), said(None, "witness")
)  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "objection"),
    [
        pytest.param([DOWN, R, R], None, id="the primary is down"),
        pytest.param([GONE, R, R], None, id="its host is gone: a majority of the others knows no primary"),
        pytest.param([HANGS, R, R], None, id="it hangs: as if it were gone"),
        pytest.param([DOWN, R], None, id="two nodes, both agents answer"),
        pytest.param([GONE, R, WITNESS], None, id="two nodes and a witness"),
        pytest.param(
            [P, R, R], "says that its PostgreSQL is a primary (diverged)", id="a refused primary lives"
        ),
        pytest.param([P, P, R], "is a primary", id="split brain: no third one"),
        pytest.param([GONE, R], "only 1 of 2", id="half is no majority"),
        pytest.param([GONE, GONE, R], "only 1 of 3", id="cannot tell a partition from a death"),
        pytest.param([HANGS, GONE, R], "only 1 of 3", id="an answer that says nothing is none"),
        pytest.param(
            [R, R, said(Role.REPLICA, cluster="other")], "several clusters", id="a stranger answers"
        ),
    ],
)
def test_may_a_standby_be_promoted(answers: list[Answer], objection: str | None) -> None:
    found = objections({f"pg{number}": answer for number, answer in enumerate(answers)}, None)
    assert (found == []) is (objection is None)
    assert objection is None or any(objection in sentence for sentence in found)


HARMLESS = {
    "backend_clustering_mode": "1", "failover_command": "", "follow_primary_command": "",
    "auto_failback": "0", "detach_false_primary": "0", "backend_flag0": "ALLOW_TO_FAILOVER",
    "health_check_period": "5", "search_primary_node_timeout": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param(
            {"failover_command": "/usr/local/bin/mine %d"}, "failover_command", id="a script of theirs"
        ),
        pytest.param({"failover_command": "our-own %d"}, None, id="a script that asks first"),
        pytest.param({"follow_primary_command": "x"}, "follow_primary_command", id="follow_primary_command"),
        pytest.param({"auto_failback": "1"}, "auto_failback", id="auto_failback"),
        pytest.param({"detach_false_primary": "1"}, "detach_false_primary", id="detach_false_primary"),
        pytest.param({"backend_flag0": "DISALLOW_TO_FAILOVER"}, "backend_flag0", id="no detach"),
        pytest.param({"backend_flag1": "ALWAYS_PRIMARY"}, "backend_flag1", id="no search"),
        pytest.param({"health_check_period": "0"}, "health_check_period", id="no health check"),
        pytest.param({"search_primary_node_timeout": "10"}, None, id="a search of 10 s"),
        pytest.param(
            {"search_primary_node_timeout": "11"}, "search_primary_node_timeout", id="a search of 11 s"
        ),
        pytest.param(
            {"search_primary_node_timeout": "0"}, "search_primary_node_timeout", id="a search for ever"
        ),
        pytest.param({"backend_clustering_mode": "2"}, "backend_clustering_mode", id="another mode"),
    ],
)
def test_settings_that_fight_the_bridge(changed: dict[str, str], named: str | None) -> None:
    found = list(conflicts(HARMLESS | changed, lambda command: command.startswith("our-own")))
    assert [sentence.partition(":")[0] for sentence in found] == ([named] if named else [])


def test_the_shipped_failover_script_is_known_by_what_it_asks(tmp_path: Path) -> None:
    shipped = SHIPPED / "failover.sh"
    other = tmp_path / "failover.sh"
    other.write_text("#!/bin/sh\npg_ctl promote\n")
    assert command_vetoes(f"{shipped} %d %P")
    assert command_vetoes(f'HEALTHAGENT_AGENTS="http://a http://b" {shipped} %d')
    assert not command_vetoes(f"{other} %d")
    assert not command_vetoes("/nowhere/failover.sh %d")
    assert not command_vetoes('"')
    assert not command_vetoes("A=b")


def test_a_search_timeout_that_is_no_number_is_the_longest() -> None:
    assert search_seconds({"search_primary_node_timeout": "5min"}) == 300


@pytest.mark.parametrize(
    ("before", "said_by", "after"),
    [
        pytest.param([], {0: PRIMARY, 1: REPLICA}, ["up", "up"], id="all well"),
        pytest.param([], {0: REFUSED, 1: REFUSED, 2: REPLICA}, ["down", "down", "up"], id="split brain"),
        pytest.param(
            [], {0: PRIMARY, 1: PRIMARY, 2: REPLICA}, ["down", "down", "up"], id="two permit writes"
        ),
        pytest.param(["up", "down"], {0: PRIMARY, 1: REPLICA}, ["up", "up"], id="a stale down"),
        pytest.param(["up", "down"], {0: UNKNOWN, 1: UNKNOWN}, ["up", "down"], id="silence changes nothing"),
        pytest.param([], {0: UNKNOWN, 1: UNKNOWN}, ["up", "up"], id="silence, and no file"),
        pytest.param(["down", "down"], {0: UNKNOWN, 1: REPLICA}, ["down", "up"], id="one permission"),
        pytest.param(
            ["up", "unused", "up"], {0: PRIMARY}, ["up", "unused", "up"], id="backends without agent"
        ),
    ],
)
def test_the_status_file(before: list[str], said_by: dict[int, Says], after: list[str]) -> None:
    assert statusfile.seeded(before, said_by) == after


@pytest.mark.parametrize(
    ("before", "said_by", "afresh"),
    [
        pytest.param([], {0: REFUSED, 1: REFUSED}, False, id="both refused"),
        pytest.param([], {0: PRIMARY, 1: PRIMARY}, False, id="both permit writes"),
        pytest.param(["down", "down"], {0: UNKNOWN, 1: UNKNOWN}, True, id="down before, and silence"),
        pytest.param(["down", "down"], {0: UNDECIDED}, True, id="down before, and no permission"),
        pytest.param(["down", "down"], {0: REFUSED, 1: UNKNOWN}, True, id="down before, one refused"),
        pytest.param(["down", "unused"], {0: UNKNOWN}, True, id="down before, the other unused"),
    ],
)
def test_a_status_file_with_all_down_is_never_written(
    before: list[str], said_by: dict[int, Says], afresh: bool
) -> None:
    with pytest.raises(statusfile.AllRefused, match="all 2 backends"):
        statusfile.seeded(before, said_by)
    assert statusfile.afresh(said_by) is afresh


def test_the_status_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pgpool_status"
    assert statusfile.read(path) == []
    statusfile.write(path, ["down", "up"])
    path.chmod(0o640)
    statusfile.write(path, ["up", "up"])
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("up\nup\n", 0o640)
    assert list(tmp_path.iterdir()) == [path]
    path.write_text("not a status file\n")
    assert statusfile.read(path) == []


def one(
    index: int, says: Says, *, writes: bool = False, status: Status = Status.UP, role: Role | None = None
) -> Observed:
    backend = Backend(index, "h", 5432, status, writes)
    return Observed(f"pg{index}", Told(says, role), backend, LiveInfo(True, None, 0))


@pytest.mark.parametrize(
    ("look", "now", "detail"),
    [
        pytest.param(Look(0, [one(0, PRIMARY, writes=True)]), 8.0, None, id="pgpool agrees, fresh enough"),
        pytest.param(Look(0, [one(0, PRIMARY, writes=True)]), 8.1, "8.1 s ago", id="too long ago"),
        pytest.param(None, 0.0, "nothing has been compared yet", id="no look yet"),
        pytest.param(
            Look(0, [one(0, PRIMARY, writes=True)], (), "refused"), 1.0, "refused", id="PCP is silent"
        ),
        pytest.param(
            Look(0, [one(0, UNKNOWN, writes=True)]), 1.0, "no agent answers", id="all agents silent"
        ),
        pytest.param(Look(0, [one(0, REPLICA, writes=True)]), 1.0, "0 agents permit", id="no primary"),
        pytest.param(Look(0, [one(0, PRIMARY, writes=True), one(1, PRIMARY)]), 1.0, "2 agents", id="two"),
        pytest.param(Look(0, [one(0, PRIMARY, status=Status.DOWN)]), 1.0, "has it down", id="it is detached"),
        pytest.param(
            Look(0, [one(0, PRIMARY), one(1, REPLICA, writes=True)]), 1.0, "does not take", id="wrong one"
        ),
    ],
)
def test_ready(look: Look | None, now: float, detail: str | None) -> None:
    ready, said_of_it = readiness(look, now, 8.0)
    assert ready is (detail is None)
    assert detail is None or detail in said_of_it


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(one(0, PRIMARY, writes=True, role=Role.PRIMARY), False, id="primary and used as one"),
        pytest.param(one(0, REPLICA, writes=True, role=Role.REPLICA), True, id="a replica gets the writes"),
        pytest.param(one(0, REFUSED, role=Role.PRIMARY), True, id="a second primary gets reads"),
        pytest.param(one(0, REFUSED, role=Role.PRIMARY, status=Status.DOWN), False, id="it is detached"),
        pytest.param(one(0, UNKNOWN, writes=True), False, id="nobody knows its role"),
    ],
)
def test_mismatch(observed: Observed, expected: bool) -> None:
    assert mismatched(observed) is expected
