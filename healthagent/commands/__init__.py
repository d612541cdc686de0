"""The command line: one module per verb. Only the verb that is asked for is imported."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from healthagent import __version__

# verb -> module of this package
VERBS = {
    "run": "run",
    "check": "check",
    "list": "list",
    "config": "config",
    "sql": "sql",
    "peers": "peers",
    "maintenance": "maintenance",
    "override": "override",
    "haproxy": "haproxy",
    "pgpool-sync": "pgpool_sync",
    "demo": "demo",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code; 2 is a usage error, as argparse has it."""
    # not list(): once the verb of that name is imported, it stands in front of the builtin here
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    parser = argparse.ArgumentParser(
        prog="healthagent",
        description="HTTP health checks for PostgreSQL nodes that never send writes to two primaries.",
    )
    parser.add_argument("--version", action="version", version=f"healthagent {__version__}")
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    asked = next((word for word in given if not word.startswith("-")), None)
    # without a known verb all are loaded, for --help and for the error that names them
    for verb in [asked] if asked in VERBS else VERBS:
        importlib.import_module(f"{__name__}.{VERBS[verb]}").add_parser(subparsers)
    chosen = parser.parse_args(given)
    try:
        code = chosen.command(chosen)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `| head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        code = 1
    sys.exit(code)
