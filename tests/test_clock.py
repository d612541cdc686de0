"""A decision that was made before the process stood still does not leave it."""

from collections.abc import Iterator

import pytest

from healthagent.clock import ATTEMPTS, STOOD_STILL, decided_now


@pytest.mark.parametrize(
    ("instants", "decided_at"),
    [
        pytest.param([1.0, 1.001], 1.0, id="at once"),
        pytest.param([1.0, 1.0 + STOOD_STILL], 1.0, id="just in time"),
        pytest.param([1.0, 9.0, 9.0, 9.001], 9.0, id="frozen in between: decided again"),
        pytest.param([1.0, 4.0, 4.0, 7.0, 7.0, 7.1], 7.0, id="frozen twice"),
        pytest.param([1.0, 2.0, 2.0, 3.0, 3.0, 4.0], 3.0, id="as slow as that each time: the last one"),
    ],
)
def test_what_is_sent_was_decided_just_now(instants: list[float], decided_at: float) -> None:
    assert len(instants) <= 2 * ATTEMPTS
    left: Iterator[float] = iter(instants)
    assert decided_now(lambda now: now, lambda: next(left)) == decided_at
    assert list(left) == [], "the clock was read once more than told"
