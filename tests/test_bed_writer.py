"""The recording writer's own judgement: a test bed that cannot fail proves nothing."""

import pytest

from tests.bed.writer import Commit, handovers, overlaps, superseded


def commit(node: str, timeline: int, asked_at: float, done_at: float) -> Commit:
    return Commit(node, timeline, 0, asked_at, done_at, "held1", 1)


@pytest.mark.parametrize(
    ("commits", "overlapping", "late"),
    [
        pytest.param([], 0, 0, id="nothing written"),
        pytest.param([commit("a", 1, 0, 1), commit("b", 2, 5, 6)], 0, 0, id="one after the other"),
        pytest.param(
            [commit("a", 1, 0, 1), commit("b", 2, 5, 6), commit("a", 3, 9, 10)], 0, 0, id="there and back"
        ),
        pytest.param(
            [commit("a", 1, 0, 1), commit("b", 2, 5, 6), commit("a", 1, 7, 8)],
            1,
            1,
            id="back on the old timeline",
        ),
        pytest.param(
            [commit("b", 2, 5, 6), commit("a", 1, 4, 7)],
            0,
            0,
            id="the order cannot be told: b was first done",
        ),
        pytest.param(
            [commit("a", 1, 0, 1), commit("b", 2, 5, 6), commit("a", 1, 5.9, 6.1)],
            1,
            0,
            id="both acknowledged, the older was asked for before",
        ),
        pytest.param(
            [commit("a", 2, 0, 1), commit("b", 2, 0.5, 0.9), commit("b", 2, 2, 3)],
            1,
            0,
            id="two nodes on one timeline",
        ),
    ],
)
def test_judgement_of_commits(commits: list[Commit], overlapping: int, late: int) -> None:
    assert len(overlaps(commits)) == overlapping
    assert len(superseded(commits)) == late


def test_a_handover_is_measured_between_acknowledgements() -> None:
    [handover] = handovers([commit("a", 1, 0, 1), commit("a", 1, 2, 3), commit("b", 2, 4, 4.5)])
    assert (handover.old.node, handover.new.node, handover.outage) == ("a", "b", 1.5)


def test_an_overlap_is_a_negative_outage() -> None:
    commits = [commit("a", 1, 0, 1), commit("b", 2, 1, 2), commit("a", 1, 2, 3)]
    [handover] = handovers(commits)
    assert handover.outage == -1
