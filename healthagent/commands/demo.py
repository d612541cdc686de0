"""`healthagent demo`: a real cluster on this machine, broken on purpose, and what the agents say."""

import argparse
import os
import signal
import subprocess
import sys
import time
from types import FrameType

EXAMPLE = """\
example:
  healthagent demo              Enter goes on, q ends
  healthagent demo --script     unattended; exit code 0 if everything it claims holds, 1 if not
Starts PostgreSQL (fetched if there is none), agents, and HAProxy where there is one, on free loopback
ports, with all files in one temporary folder, and removes everything at the end.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `demo` to the command line; its arguments name `run` of this module as `command`."""
    parser = subparsers.add_parser(
        "demo",
        help="walk through failover and split brain on a real 3-node cluster on loopback",
        description="Walk through failover and split brain on a real 3-node cluster on loopback.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--script", action="store_true", help="unattended: no pauses (so without a terminal)")
    parser.add_argument("--fast", action="store_true", help="no pauses")
    parser.add_argument("--keep", action="store_true", help="keep logs and configurations")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 0 if all its claims hold, 1 with those that do not, 130 after Ctrl-C."""
    # only here: asyncpg and the rest take longer to import than other verbs to run
    from healthagent.demo.agent import AgentFailed
    from healthagent.demo.binaries import PostgresFailed
    from healthagent.demo.play import CannotStart, play
    from healthagent.demo.proxy import ProxyFailed
    from healthagent.demo.screen import Ended, Screen

    attended = sys.stdin.isatty() and sys.stdout.isatty() and not arguments.script
    screen = Screen(sys.stdout, pauses=attended and not arguments.fast)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    began = time.monotonic()
    try:
        play(screen, keep=arguments.keep)
    except Ended:
        screen.write("Ended; everything is removed.")
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (AgentFailed, ProxyFailed, PostgresFailed, TimeoutError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"the demo could not go on: {error}\nhealthagent demo --keep keeps the logs\n")
        return 1
    except BrokenPipeError:  # whoever read our output has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if screen.differed:
        screen.write(f"\n{len(screen.differed)} of {screen.checked} claims did not hold:")
        screen.show(screen.differed)
        return 1
    screen.write(f"\nAll {screen.checked} claims held; {time.monotonic() - began:.0f} s.")
    return 0


def _exit(number: int, _frame: FrameType | None) -> None:
    """End as after Ctrl-C: everything that was started is ended on the way out."""
    sys.exit(128 + number)
