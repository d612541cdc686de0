"""When the fence hook runs, and what becomes of the command."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from healthagent.board import Board, Identity
from healthagent.config import FenceSettings
from healthagent.core.model import Local, Reason, Role, Snapshot, Verdict
from healthagent.core.view import Memory, Policy
from healthagent.events import Events
from healthagent.fence import Episode, Fence

YES = Verdict(True, Reason.PRIMARY, "")
STALE = Verdict(False, Reason.STALE_TIMELINE, "older")
DRAINING = Verdict(False, Reason.RIVAL_DRAINING, "wait")
SETTINGS = FenceSettings(after=5.0)


def ran(moments: Sequence[tuple[float, Verdict, Role | None]]) -> list[float]:
    episode = Episode()
    return [now for now, verdict, role in moments if episode.due(verdict, role, SETTINGS, now)]


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        pytest.param(
            [(0, STALE, Role.PRIMARY), (4.9, STALE, Role.PRIMARY)], [], id="not before fence.after has passed"
        ),
        pytest.param([(0, STALE, Role.PRIMARY), (5.0, STALE, Role.PRIMARY)], [5.0], id="once it has"),
        pytest.param(
            [(0, STALE, Role.PRIMARY), (5, STALE, Role.PRIMARY), (60, STALE, Role.PRIMARY)],
            [5],
            id="once per episode",
        ),
        pytest.param(
            [
                *[(0, STALE, Role.PRIMARY), (5, STALE, Role.PRIMARY), (6, YES, Role.PRIMARY)],
                *[(7, STALE, Role.PRIMARY), (12, STALE, Role.PRIMARY)],
            ],
            [5, 12],
            id="a 200 ends an episode",
        ),
        pytest.param(
            [
                *[(0, STALE, Role.PRIMARY), (5, STALE, Role.PRIMARY), (6, STALE, Role.REPLICA)],
                *[(7, STALE, Role.PRIMARY), (12, STALE, Role.PRIMARY)],
            ],
            [5, 12],
            id="a replica ends an episode",
        ),
        pytest.param(
            [(0, STALE, Role.PRIMARY), (5, STALE, None), (6, STALE, Role.PRIMARY)],
            [6],
            id="nothing is run while the role is unknown",
        ),
        pytest.param(
            [(0, STALE, Role.PRIMARY), (3, DRAINING, Role.PRIMARY), (6, STALE, Role.PRIMARY)],
            [],
            id="another reason in between begins the wait anew",
        ),
        pytest.param(
            [(0, DRAINING, Role.PRIMARY), (60, DRAINING, Role.PRIMARY)], [], id="a reason that was not chosen"
        ),
    ],
)
def test_when_the_hook_runs(moments: list[tuple[float, Verdict, Role | None]], expected: list[float]) -> None:
    assert ran(moments) == expected


def stale_board() -> Board:
    board = Board(
        Identity("pg1", "main", "one"),
        Policy(durable=False),
        Memory(started_at=0, high_water={7: 2}),
    )
    board.local = Local(Snapshot(asked_at=0, role=Role.PRIMARY, system_identifier=7, timeline=1))
    board.view(0)
    return board


async def fenced(settings: FenceSettings, events: Events | None = None) -> Fence:
    """A fence over a stale primary whose clock stands still, until its hook has run once."""
    fence = Fence(stale_board(), settings, lambda: 0.0, events or Events())
    task = asyncio.create_task(fence.run())
    async with asyncio.timeout(10):
        while not fence.runs:  # noqa: ASYNC110  # a counter, which nobody else waits for
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    return fence


async def test_the_command_learns_why_from_its_environment(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f'echo "$HEALTHAGENT_REASON $HEALTHAGENT_NODE $HEALTHAGENT_TIMELINE $HEALTHAGENT_ROLE" > {seen}'
    fence = await fenced(FenceSettings(command=("sh", "-c", script), after=0))
    assert fence.runs == {"ok": 1}
    assert seen.read_text() == "stale_timeline pg1 1 primary\n"


@pytest.mark.parametrize(
    ("command", "result"),
    [
        pytest.param(("false",), "failed", id="a command that fails"),
        pytest.param(("/nowhere/fence",), "failed", id="a command that does not exist"),
        pytest.param(("sh", "-c", "yes | head -c 1000000"), "ok", id="a command that says too much"),
    ],
)
async def test_how_it_went_is_counted(command: tuple[str, ...], result: str) -> None:
    events = Events()
    assert (await fenced(FenceSettings(command=command, after=0), events)).runs == {result: 1}
    assert [(event.kind, event.reason) for event in events.newest(9)] == [
        ("fence", "begin"),
        ("fence", result),
    ]


async def test_what_the_command_says_is_for_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    settings = FenceSettings(command=("sh", "-c", "echo password=secret; exit 3"), after=0)
    await fenced(settings, events)
    assert "secret" in caplog.text
    assert [event.detail for event in events.newest(1)] == ["exit code 3"]


async def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = f"sleep 600 & echo $! > {child}; wait"
    settings = FenceSettings(command=("sh", "-c", script), after=0, timeout=0.5)
    assert (await fenced(settings)).runs == {"timeout": 1}
    async with asyncio.timeout(5):
        while _alive(child.read_text().strip()):  # noqa: ASYNC110  # a process of the kernel
            await asyncio.sleep(0.01)


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
