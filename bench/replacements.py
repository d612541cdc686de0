"""Replace the agent of a serving primary many times: `python -m bench.replacements`."""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from healthagent.demo.binaries import Missing as NoPostgres
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.fetch import find_or_fetch
from tests.bed.haproxy import Missing, find_haproxy
from tests.bed.replacing import CLIENTS, replaced

SECRET = "a secret for the bench only"


def main() -> int:
    """Print what was seen; 1 when anybody noticed anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="how many replacements")
    parser.add_argument("--secret", action="store_true", help="the agents sign what they say")
    arguments = parser.parse_args()
    binaries, program = find_or_fetch(), find_haproxy("2.6")
    for found in (binaries, program):
        if isinstance(found, NoPostgres | Missing):
            sys.stderr.write(f"{found.problem}\n")
            return 1
    assert not isinstance(binaries, NoPostgres)
    assert not isinstance(program, Missing)
    settings = {"peer": {"secret": SECRET}} if arguments.secret else {}
    with (
        tempfile.TemporaryDirectory(prefix="replacements-") as folder,
        Template(binaries) as template,
        Cluster(binaries, 3, template=template) as cluster,
    ):
        seen = asyncio.run(replaced(program, cluster.nodes, Path(folder), arguments.count, settings=settings))
    load = os.getloadavg()[0]
    sys.stdout.write(f"{CLIENTS} clients, checks every 100 ms, load average {load:.1f} at the end\n")
    for what, value in seen.figures().items():
        sys.stdout.write(f"{what}: {value}\n")
    for line in (*seen.cut, seen.peers_said, seen.proxy_said):
        if line:
            sys.stdout.write(f"! {line}\n")
    noticed = seen.checks_failed or seen.marked_down or seen.cut or seen.refused or seen.peers_said
    return 1 if noticed else 0


if __name__ == "__main__":
    sys.exit(main())
