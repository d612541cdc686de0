"""The one clock of decisions."""

import time
from collections.abc import Callable
from typing import TypeVar

from healthagent.core.model import Instant

STOOD_STILL = 0.25  # seconds: a decision takes a thousandth of that, also on a busy machine
ATTEMPTS = 3  # then the machine is that slow, and the last decision is as young as one can be

T = TypeVar("T")


def boottime() -> Instant:
    """CLOCK_BOOTTIME in seconds: it never jumps, and it counts the time that a machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def decided_now(decide: Callable[[Instant], T], clock: Callable[[], Instant]) -> T:
    """What `decide` says of this moment, to be sent at once.

    A process may stand still between reading the clock and using what it read (SIGSTOP, a suspended
    machine). When it goes on, a permission from before must not leave it: it is decided again.
    """
    for _ in range(ATTEMPTS):
        now = clock()
        decided = decide(now)
        if clock() - now <= STOOD_STILL:
            break
    return decided
