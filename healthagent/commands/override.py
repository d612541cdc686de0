"""`healthagent override`: an operator's word on what only a person can judge."""

import argparse
import sys

from healthagent.commands.maintenance import add_token, add_words, duration, post, words

EXAMPLE = """\
Run it on the node that shall serve, when you know that no other one does.
example:
  healthagent override clear --why "pg2 is gone for good"
  healthagent override primary on --for 10m --why "the other site burns"
  healthagent override primary off --for 1h
  healthagent override end
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `override` to the command line."""
    parser = subparsers.add_parser(
        "override",
        help="clear what waits for a person, or force /primary for a while",
        description="clear: forget stale_timeline and an unresolved conflict on this node. primary on, off: "
        "answer that on /primary for so long, whatever the rules say; on never where PostgreSQL is no "
        "primary or another node serves. end: leave it to the rules again.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("clear", "primary", "end"))
    parser.add_argument("verdict", nargs="?", choices=("on", "off"), help="with primary")
    parser.add_argument(
        "--for", dest="duration", type=duration, metavar="10m", help="with primary: ends by itself then"
    )
    add_words(parser)
    parser.add_argument("--url", help="the agent (default: of the configuration, else 127.0.0.1:8008)")
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration that says where it listens")
    add_token(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it and say what was done."""
    forces = arguments.action == "primary"
    if forces and (arguments.verdict is None or arguments.duration is None):
        sys.stderr.write("override primary: want on or off, and --for\n")
        return 2
    if not forces and (arguments.verdict is not None or arguments.duration is not None):
        sys.stderr.write(f"override {arguments.action}: takes no verdict and no --for\n")
        return 2
    if forces and arguments.verdict == "on" and not arguments.why:
        sys.stderr.write("override primary on: want --why\n")
        return 2
    if forces:
        body = {"primary": arguments.verdict, "seconds": arguments.duration}
    else:
        body = {arguments.action: True}
    return post(arguments, "/override", body | words(arguments))
