"""Which timeline switches `/history` tells of, of those that a node went through."""

import asyncio
from pathlib import Path

import pytest

from healthagent.core.view import Maintenance
from healthagent.keeper import MOST_SWITCHES, Keeper
from tests.bed.boards import PRIMARY, Clock
from tests.bed.boards import board as watched
from tests.builders import NOW, snap


def followed(folder: Path, *timelines: int | None) -> list[tuple[int, int]]:
    """The switches of a node that was seen on these timelines, each 100 bytes further: (timeline, LSN)."""
    keeper = Keeper(watched(PRIMARY), folder, "boot", Clock(NOW), None)
    for number, timeline in enumerate(timelines, start=1):
        keeper.follow(snap(timeline=timeline, flush_lsn=100 * number), "pg1")
    return [(switch.timeline, switch.lsn) for switch in keeper.history]


@pytest.mark.parametrize(
    ("timelines", "switches"),
    [
        pytest.param([1], [], id="none"),
        pytest.param([1, 1, 2, 3], [(1, 200), (2, 300)], id="two promotions"),
        pytest.param([1, 3], [(1, 100)], id="another one's promotions in between"),
        pytest.param([1, None, 2], [(1, 100)], id="unknown in between"),
        pytest.param([1, 2, 1], [(1, 100)], id="rewound"),
        pytest.param([1, 2, 1, 2], [(1, 300)], id="promoted, rewound and promoted again"),
        pytest.param([1, 2, 3, 2, 4], [(1, 100), (2, 400)], id="what came before the fork stays"),
        pytest.param([3, 4, 1, 5], [(1, 300)], id="another cluster's beginning"),
    ],
)
def test_switches(tmp_path: Path, timelines: list[int | None], switches: list[tuple[int, int]]) -> None:
    assert followed(tmp_path, *timelines) == switches


def test_the_list_is_bounded(tmp_path: Path) -> None:
    found = followed(tmp_path, *range(1, MOST_SWITCHES + 12))
    assert [timeline for timeline, _ in found] == list(range(11, MOST_SWITCHES + 11))


async def test_who_waits_for_the_disk_is_told_when_it_has_written(tmp_path: Path) -> None:
    made = watched(PRIMARY)
    keeper = Keeper(made, tmp_path, "boot", Clock(NOW), None)
    made.maintain(Maintenance(None, "alice"), NOW)
    waits = asyncio.create_task(keeper.why_unsaved())
    await asyncio.sleep(0)
    assert not waits.done()
    await keeper.save_now()
    assert await waits is None
    assert "alice" in (tmp_path / "state.json").read_text()
    assert await keeper.why_unsaved() is None  # nothing to wait for


async def test_a_disk_that_does_not_answer_or_refuses_is_waited_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healthagent.keeper.PROMPT", 0.05)
    keeper = Keeper(watched(PRIMARY), tmp_path / "missing", "boot", Clock(NOW), None)
    assert await keeper.why_unsaved() == f"the disk of {tmp_path}/missing has not answered for 0.05 s"
    await keeper.save_now()
    why = await keeper.why_unsaved()
    assert why is not None
    assert why.startswith(f"{tmp_path}/missing/state.json: cannot be written")
