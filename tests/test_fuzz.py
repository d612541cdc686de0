"""A bounded part of the fuzzing; `make fuzz` runs ten minutes of it."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.targets import TARGETS, Target

EXAMPLES = 100


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_nothing_that_others_wrote_unsettles_us(target: Target) -> None:
    bounded = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
    bounded(given(target.inputs)(target.read))()
