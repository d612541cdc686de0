"""When the fence hook runs, and what becomes of the command."""

import asyncio
import logging
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from healthagent import fence as fence_module
from healthagent.board import Board, Identity
from healthagent.config import FenceSettings
from healthagent.core.model import Failure, Local, Reason, Role, Snapshot, Verdict
from healthagent.core.peer import Peer
from healthagent.core.view import Maintenance, Memory, Policy
from healthagent.events import Events
from healthagent.fence import BLIND, LOOK_EVERY, SECRETS, Episode, Fence
from healthagent.hook import MAX_OUTPUT, Run
from tests.builders import term

YES = Verdict(True, Reason.PRIMARY, "")
STALE = Verdict(False, Reason.STALE_TIMELINE, "older")
DRAINING = Verdict(False, Reason.RIVAL_DRAINING, "wait")
DOWN = Verdict(False, Reason.POSTGRES_DOWN, "gone")
HANDS_OFF = Verdict(False, Reason.MAINTENANCE, "an operator")
SETTINGS = FenceSettings(after=5.0)
PRIMARY = Role.PRIMARY

Phase = tuple[float, Verdict, Role | None]  # until then this is what each look sees


def ran(phases: Sequence[Phase], every: float = LOOK_EVERY) -> list[float]:
    """When the hook began, over looks at every moment from 0 to the end of the last phase."""
    episode, began, now = Episode(), [], 0.0
    for until, verdict, role in phases:
        while now <= until:
            if episode.due(verdict, role, SETTINGS, now):
                episode.begun()
                began.append(now)
            now += every
    return began


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        pytest.param([(4.75, STALE, PRIMARY)], [], id="not before fence.after has passed"),
        pytest.param([(5.0, STALE, PRIMARY)], [5.0], id="once it has"),
        pytest.param([(60, STALE, PRIMARY)], [5.0], id="once per episode"),
        pytest.param(
            [(5, STALE, PRIMARY), (6, YES, PRIMARY), (20, STALE, PRIMARY)],
            [5, 11.25],
            id="a 200 ends an episode",
        ),
        pytest.param(
            [(5, STALE, PRIMARY), (6, DRAINING, Role.REPLICA), (20, STALE, PRIMARY)],
            [5, 11.25],
            id="a replica ends an episode",
        ),
        pytest.param(
            [(5, STALE, PRIMARY), (6, DOWN, None), (60, STALE, PRIMARY)],
            [5],
            id="lost sight of PostgreSQL does not end an episode",
        ),
        pytest.param(
            [(4, STALE, PRIMARY), (5, DOWN, None), (10, STALE, PRIMARY)],
            [],
            id="lost sight of PostgreSQL begins the wait anew",
        ),
        pytest.param([(60, DOWN, None)], [], id="nothing is run while the role is unknown"),
        pytest.param([(60, STALE, None)], [], id="nor whatever the reason is then"),
        pytest.param(
            [(3, STALE, PRIMARY), (4, DRAINING, PRIMARY), (9, STALE, PRIMARY)],
            [],
            id="another reason in between begins the wait anew",
        ),
        pytest.param([(60, DRAINING, PRIMARY)], [], id="a reason that was not chosen"),
        pytest.param([(60, HANDS_OFF, PRIMARY)], [], id="maintenance"),
    ],
)
def test_when_the_hook_runs(phases: list[Phase], expected: list[float]) -> None:
    assert ran(phases) == expected


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        pytest.param(BLIND, [6.0], id="a busy machine"),
        pytest.param(BLIND + 0.01, [], id="an agent that stands still again and again sees nothing last"),
    ],
)
def test_the_wait_counts_what_was_seen(every: float, expected: list[float]) -> None:
    assert ran([(6.5, STALE, PRIMARY)], every) == expected


def stale_board() -> Board:
    board = Board(
        Identity("pg1", "main", "one"),
        Policy(durable=False),
        Memory(started_at=0, high_water={7: 2}),
    )
    board.local = Local(Snapshot(asked_at=0, role=Role.PRIMARY, system_identifier=7, timeline=1))
    board.view(0)
    return board


async def fenced(
    settings: FenceSettings, events: Events | None = None, answering: Callable[[], int] = lambda: 0
) -> Fence:
    """A fence over a stale primary whose clock stands still, until its hook has run once."""
    fence = Fence(stale_board(), settings, lambda: 0.0, events or Events(), answering)
    task = asyncio.create_task(fence.run())
    async with asyncio.timeout(10):
        while not fence.runs:  # noqa: ASYNC110  # a counter, which nobody else waits for
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    return fence


async def test_the_command_learns_why_from_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    fence = await fenced(FenceSettings(command=("sh", "-c", f"env > {tmp_path}/seen"), after=0))
    assert fence.runs == {"ok": 1}
    seen = (tmp_path / "seen").read_text()
    found = dict(line.split("=", 1) for line in seen.splitlines() if line.startswith("HEALTHAGENT_"))
    assert found == {
        "HEALTHAGENT_REASON": "stale_timeline",
        "HEALTHAGENT_DETAIL": "this primary is on timeline 1, but clients were already sent to timeline 2",
        "HEALTHAGENT_NODE": "pg1",
        "HEALTHAGENT_CLUSTER": "main",
        "HEALTHAGENT_ROLE": "primary",
        "HEALTHAGENT_TIMELINE": "1",
        "HEALTHAGENT_MEMBERS_HEARD": "1",
    }
    assert "hunter2" not in seen
    assert "KUBERNETES_SERVICE_HOST=10.0.0.1\n" in seen  # the rest is the agent's own


@pytest.mark.parametrize(
    ("command", "result", "status"),
    [
        pytest.param(("true",), "ok", 0, id="a command that succeeds"),
        pytest.param(("sh", "-c", "exit 3"), "failed", 3, id="a command that fails"),
        pytest.param(("sh", "-c", "kill -9 $$"), "failed", -9, id="a command that is killed"),
        pytest.param(("/nowhere/fence",), "failed", None, id="a command that does not exist"),
        pytest.param(("sh", "-c", "yes | head -c 1000000"), "ok", 0, id="a command that says too much"),
        pytest.param(("sh", "-c", "sleep 600 &"), "ok", 0, id="a child that keeps the pipe open"),
    ],
)
async def test_how_it_went_is_counted(command: tuple[str, ...], result: str, status: int | None) -> None:
    events = Events()
    fence = await fenced(FenceSettings(command=command, after=0), events)
    assert fence.runs == {result: 1}
    assert [(event.kind, event.reason) for event in events.newest(9)] == [
        ("fence", "begin"),
        ("fence", result),
    ]
    assert fence.last is not None
    assert fence.last.status == status
    assert len(fence.last.output) <= MAX_OUTPUT


async def test_what_the_command_says_is_for_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    settings = FenceSettings(command=("sh", "-c", "echo password=secret; exit 3"), after=0)
    await fenced(settings, events)
    assert "secret" in caplog.text
    assert [event.detail for event in events.newest(1)] == ["exit status 3"]


async def test_what_it_said_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "healthagent.fence"):
        await fenced(FenceSettings(command=("sh", "-c", "echo stopped; echo twice >&2; exit 4"), after=0))
    began, ended = [record.getMessage() for record in caplog.records]
    assert began.startswith("fence: sh runs because of stale_timeline: this primary is on timeline 1")
    assert ended == "fence: failed: exit status 4; it said: 'stopped\\ntwice'"


async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = f"sleep 600 & echo $! > {child}; wait"
    settings = FenceSettings(command=("sh", "-c", script), after=0, timeout=0.5)
    fence = await fenced(settings)
    assert fence.runs == {"timeout": 1}
    assert fence.last is not None
    assert fence.last.status == -9
    await _ends(child)


def test_what_it_leaves_behind_has_the_rest_of_its_time(tmp_path: Path) -> None:
    """An exit is not the end of a group: its time-out is."""
    child = tmp_path / "child"
    run = Run(("sh", "-c", f"sleep 600 >/dev/null 2>&1 & echo $! > {child}"), {"PATH": "/usr/bin:/bin"}, 1.0)
    assert run().result == "ok"
    assert _alive(child.read_text().strip())
    run.linger()
    _wait_end(child.read_text().strip())


async def test_the_end_of_the_agent_ends_the_command(tmp_path: Path) -> None:
    child = tmp_path / "child"
    settings = FenceSettings(command=("sh", "-c", f"sleep 600 & echo $! > {child}; wait"), after=0)
    task = asyncio.create_task(Fence(stale_board(), settings, lambda: 0.0, Events()).run())
    async with asyncio.timeout(10):
        while not child.exists() or not child.read_text():  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    await _ends(child)


async def test_a_start_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """exec waits for the disk that the program is on; the loop, and with it every answer, does not."""
    real, looks = subprocess.Popen, 0

    def slow(*arguments: Any, **more: Any) -> "subprocess.Popen[bytes]":
        time.sleep(1.0)
        return real(*arguments, **more)

    monkeypatch.setattr(subprocess, "Popen", slow)
    running = asyncio.create_task(fenced(FenceSettings(command=("true",), after=0)))
    longest, last = 0.0, time.monotonic()
    while not running.done():
        await asyncio.sleep(0.01)
        looks, longest, last = looks + 1, max(longest, time.monotonic() - last), time.monotonic()
    assert (await running).runs == {"ok": 1}
    assert looks > 20
    assert longest < 0.9


def isolated_board(peers: int) -> Board:
    """A primary that has heard nobody since its start, a long time ago."""
    policy = Policy(durable=False, demote_isolated=True, round_max_age=1e9)
    members = [Peer(f"pg{number + 2}") for number in range(peers)]
    board = Board(Identity("pg1", "main", "one"), policy, Memory(started_at=-100.0), members)
    board.local = Local(Snapshot(asked_at=0, role=Role.PRIMARY, system_identifier=7, timeline=1))
    for member in members:
        board.end_call(member.name, -0.2, 0.0)
    board.memory = Memory(started_at=-100.0, term=term(since=1100.0, system_identifier=7, seen_at=0.0))
    return board


@pytest.mark.parametrize(
    ("peers", "answering", "runs"),
    [
        pytest.param(2, 0, True, id="silence on all sides"),
        pytest.param(2, 1, False, id="one of two answers something: with this node a majority"),
        pytest.param(4, 1, True, id="one of four: no majority"),
        pytest.param(4, 2, False, id="two of four"),
    ],
)
async def test_isolation_that_is_the_agents_own_fault_is_no_cause(
    peers: int, answering: int, runs: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fence_module, "LOOK_EVERY", 0.01)
    board = isolated_board(peers)
    assert board.primary(0.0).reason == "isolated"
    settings = FenceSettings(command=("true",), after=0)
    events = Events()
    fence = Fence(board, settings, lambda: 0.0, events, lambda: answering)
    task = asyncio.create_task(fence.run())
    async with asyncio.timeout(10):
        while not {one.reason for one in events.newest(9)} & {"ok", "spared"}:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    assert fence.runs == ({"ok": 1} if runs else {})
    said = [record.getMessage() for record in caplog.records if "not run" in record.getMessage()]
    assert len(said) == (0 if runs else 1)


async def test_what_was_heard_of_a_newer_timeline_is_no_fault_of_the_agent() -> None:
    assert (await fenced(FenceSettings(command=("true",), after=0), answering=lambda: 9)).runs == {"ok": 1}


@pytest.mark.parametrize("how", ["stopping", "maintenance", "failure"])
async def test_an_agent_that_is_out_of_service_runs_nothing(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence_module, "LOOK_EVERY", 0.01)
    board = stale_board()
    match how:
        case "stopping":
            board.stop(0.0)
        case "maintenance":
            board.maintain(Maintenance(None), 0.0)
        case "failure":
            board.observe_failure(Failure(Reason.POSTGRES_DOWN, "gone", 0.0), 0.0)
    fence = Fence(board, FenceSettings(command=("true",), after=0), lambda: 0.0, Events())
    task = asyncio.create_task(fence.run())
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait([task])
    assert fence.runs == {}


async def _ends(child: Path) -> None:
    await asyncio.to_thread(lambda: _wait_end(child.read_text().strip()))


def _wait_end(pid: str) -> None:
    deadline = time.monotonic() + 5
    while _alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
