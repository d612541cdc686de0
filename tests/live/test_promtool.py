"""Prometheus' own linter on a scrape of every kind."""

import shutil
import subprocess
from collections import Counter
from dataclasses import replace

import pytest

from healthagent.board import Board
from healthagent.compatibility import PATRONI, POSTGRES_EXPORTER, Compatibility
from healthagent.core.model import Failure, Reason
from healthagent.core.peer import Peer
from healthagent.metrics import Metrics, Sources
from tests.bed.boards import PRIMARY, START, Clock, board, replica, says

pytestmark = pytest.mark.live

HOSTILE = 'quote" back\\slash new\nline größe 😀'


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.fail("no promtool: run `apt-get install -y --no-install-recommends prometheus`", pytrace=False)
    return found


def lint(promtool: str, text: bytes) -> tuple[int, str]:
    ran = subprocess.run(
        [promtool, "check", "metrics"],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
    )
    return ran.returncode, ran.stdout.decode()


def split_brain() -> Board:
    made = board(replace(PRIMARY, missing=("pg_stat_replication",)), peers=(Peer("pg2"), Peer(HOSTILE)))
    made.hear("pg2", says("pg2", PRIMARY), START)
    made.hear(HOSTILE, says(HOSTILE, replica()), START)
    made.observe_new_connection(Failure(Reason.NO_CONNECTION_SLOT, "too many clients", START), START)
    return made


def counted() -> Sources:
    """A sample in every family that others count."""
    return Sources(
        checks=Counter({("/primary", 200): 7, ("other", 404): 1}),
        probe_failures=Counter({Reason.POSTGRES_DOWN: 2}),
        verdict_changes=Counter({("primary", Reason.PRIMARY): 3}),
        fence_runs=Counter(failed=1),
        peer_failures=Counter({(HOSTILE, "timeout"): 4}),
        round_trips={HOSTILE: 0.25},
        haproxy_sessions=lambda _now: {"pg_primary/pg1": 13},
        alarms=lambda: ["state: the disk is full"],
    )


@pytest.mark.parametrize(
    ("made", "sources"),
    [
        pytest.param(board(None), Sources(), id="nothing known yet"),
        pytest.param(board(None, witness=True), Sources(), id="a witness"),
        pytest.param(board(replica(behind=4096, late=2.0)), counted(), id="a lagging replica"),
        pytest.param(split_brain(), counted(), id="split brain with a sample in every family"),
        pytest.param(board(PRIMARY, name=HOSTILE, cluster=HOSTILE), Sources(), id="hostile names"),
    ],
)
def test_promtool_has_no_complaint(promtool: str, made: Board, sources: Sources) -> None:
    metrics = Metrics(made, Clock(), sources)
    metrics.probe_duration.observe(0.002)
    assert lint(promtool, metrics.render(None)[0]) == (0, "")


@pytest.mark.parametrize("made", [board(PRIMARY), board(replica(late=2.0)), board(None, witness=True)])
def test_other_exporters_names_are_tidy_too(promtool: str, made: Board) -> None:
    more = [Compatibility(made, Clock(), lambda: (PATRONI, POSTGRES_EXPORTER))]
    assert lint(promtool, Metrics(made, Clock(), Sources(), more).render(None)[0]) == (0, "")


def test_the_linter_would_complain(promtool: str) -> None:
    status, complaints = lint(promtool, b"# TYPE checks counter\nchecks 1\n")
    assert status != 0
    assert "_total" in complaints
