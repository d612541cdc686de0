"""A bounded part of the fuzzing; `make fuzz` runs ten minutes of it."""

import pytest
from hypothesis import given, settings

from tests.fuzz.targets import TARGETS, Target

EXAMPLES = 100


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_nothing_that_others_wrote_unsettles_us(target: Target) -> None:
    settings(max_examples=EXAMPLES)(given(target.inputs)(target.read))()
