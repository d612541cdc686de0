"""Play many random schedules on all cores; print the first failures as stories, with their seeds.

python -m tests.simulator --schedules 20000
python -m tests.simulator --seed 4711 --schedules 1     one again, as printed by a failure
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence

from tests.simulator.plan import plan_of
from tests.simulator.play import Failure, play, shrink

CHUNK = 50  # schedules that a worker plays before it reports
MOST_FAILURES = 3  # that are told; a real fault shows in the first ones


def played(seeds: range) -> list[Failure]:
    """The failures among some schedules."""
    return [failure for seed in seeds if (failure := play(plan_of(seed))) is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__.split("\n")[0])
    parser.add_argument("--schedules", type=int, default=20_000, help="how many to play (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the first one; fresh ones unless given")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    chosen = parser.parse_args(arguments)
    first = chosen.seed if chosen.seed is not None else int.from_bytes(os.urandom(6)) // CHUNK * CHUNK
    seeds = range(first, first + chosen.schedules)
    print(f"{chosen.schedules} schedules from seed {first}", flush=True)
    began, failures = time.monotonic(), run(seeds, chosen.workers)
    took = time.monotonic() - began
    played_all = f"all {chosen.schedules}" if not failures else "as many as it took to find"
    print(f"{played_all} in {took:.0f} s: {len(failures)} failures")
    for failure in failures[:MOST_FAILURES]:
        print(
            f"\n{shrink(failure)}\nagain: python -m tests.simulator --schedules 1 --seed {failure.plan.seed}"
        )
    return 1 if failures else 0


def run(seeds: range, workers: int) -> list[Failure]:
    """Play all, but no more once there is enough to tell."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    failures: list[Failure] = []
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for found in pool.imap_unordered(played, chunks):
            failures += found
            if len(failures) >= MOST_FAILURES:
                break
    return failures


if __name__ == "__main__":
    sys.exit(main())
