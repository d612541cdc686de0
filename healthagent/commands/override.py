"""`healthagent override`: an operator's word on what only a person can judge."""

import argparse

from healthagent.commands.maintenance import add_token, post

EXAMPLE = """\
Run it on the node that shall serve, when you know that no other one does.
example:
  healthagent override clear
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `override` to the command line."""
    parser = subparsers.add_parser(
        "override",
        help="clear the latches that wait for a person",
        description="Clear what waits for a person on this node: stale_timeline, and an unresolved conflict.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("clear",))
    parser.add_argument("--url", help="the agent (default: of the configuration, else 127.0.0.1:8008)")
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration that says where it listens")
    add_token(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Clear them and say which there were."""
    return post(arguments, "/override", {"clear": True})
