"""`make fuzz`: every target in turn with ever new input, ten minutes in all.

    python -m tests.fuzz --minutes 10 --only "peer wire"

A failure is printed with the input that makes it, shrunk, and is exit code 1. An input that is not done
with after a minute is a failure too: the stack is printed and the run ends.
"""

import argparse
import faulthandler
import sys
import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import TARGETS, Target

BATCH = 2000  # inputs; between two batches the clock is looked at
STUCK = 60.0  # seconds for one input; the slowest takes some milliseconds


def fuzz(target: Target, seconds: float, first: int) -> int:
    """Feed one target for so long; returns how many inputs it took."""
    bounded = settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )
    taken = 0

    def counted(one: Any) -> None:
        nonlocal taken
        taken += 1
        faulthandler.dump_traceback_later(STUCK, exit=True)
        target.read(one)

    ends, number = time.monotonic() + seconds, first
    while time.monotonic() < ends:
        seed(number)(bounded(given(target.inputs)(counted)))()
        number += 1
    faulthandler.cancel_dump_traceback_later()
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together (10)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first batch (the time)")
    parser.add_argument("--only", choices=[target.name for target in TARGETS], help="one target")
    asked = parser.parse_args()
    targets = [target for target in TARGETS if asked.only in (None, target.name)]
    for target in targets:
        taken = fuzz(target, 60 * asked.minutes / len(targets), asked.seed)
        print(f"{target.name}: {taken} inputs from seed {asked.seed} on, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
