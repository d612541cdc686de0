"""The one clock of decisions."""

import time

from .core.model import Instant


def boottime() -> Instant:
    """CLOCK_BOOTTIME in seconds: it never jumps, and it counts the time that a machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
