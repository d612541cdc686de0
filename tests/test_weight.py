"""The share of the reads that a lagging replica is given."""

import pytest

from healthagent.core.model import LagLimit
from healthagent.core.weight import weight
from tests.bed.boards import START, board, replica

BYTES = LagLimit(lag_bytes=10_000)
BOTH = LagLimit(lag_bytes=10_000, lag_seconds=10)


@pytest.mark.parametrize(
    ("limit", "behind", "late", "percent"),
    [
        pytest.param(None, 0, None, 100, id="no limit and no lag: all"),
        pytest.param(None, 1 << 40, 3600.0, 100, id="no limit: all, however far behind"),
        pytest.param(BYTES, 0, None, 100, id="no lag: all"),
        pytest.param(BYTES, 50, None, 100, id="half a hundredth rounds to all"),
        pytest.param(BYTES, 51, None, 99, id="a little more is felt"),
        pytest.param(BYTES, 5_000, None, 50, id="half way to the limit: about half"),
        pytest.param(BYTES, 9_900, None, 2, id="shortly below the limit: nearly nothing"),
        pytest.param(BYTES, 10_000, None, 1, id="at the limit: the least, and not zero"),
        pytest.param(BYTES, 15_000, None, 1, id="beyond it the verdict refuses; never below the least"),
        pytest.param(BOTH, 2_000, 9.0, 11, id="time is nearer to its limit than bytes"),
        pytest.param(BOTH, 9_000, 2.0, 11, id="bytes are nearer to their limit than time"),
        pytest.param(LagLimit(lag_bytes=0), 0, None, 100, id="no lag where none is allowed: all"),
        pytest.param(LagLimit(lag_bytes=0), 1, None, 1, id="a lag where none is allowed"),
        pytest.param(LagLimit(lag_seconds=0), 0, 0.0, 100, id="no lag in time where none is allowed"),
        pytest.param(LagLimit(lag_seconds=10), 1, None, 1, id="a time lag that is not known is not small"),
    ],
)
def test_the_weight_falls_with_the_lag(
    limit: LagLimit | None, behind: int, late: float | None, percent: int
) -> None:
    made = board(replica(behind, late), limit)
    assert weight(made.view(START), made.policy) == percent
