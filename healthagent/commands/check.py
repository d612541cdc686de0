"""`healthagent check`: one question to one agent, answered by the exit code."""

import argparse
import sys
from urllib.parse import quote, urlencode

from healthagent.commands.client import BadUrl, Unreachable, agent_url, ask, printable

# The checks of healthagent.server.answers, whose import would take an exec probe ten times as long as asking
CHECKS = (
    "primary",
    "replica",
    "health",
    "readiness",
    "liveness",
    "read-write",
    "read-only",
    "sync",
    "synchronous",
    "async",
    "asynchronous",
    "quorum",
    "read-only-sync",
    "read-only-synchronous",
    "read-only-quorum",
    "leader",
    "master",
    "standby-leader",
    "standby_leader",
)
YES, NO, USAGE, UNREACHABLE = 0, 1, 2, 3

EXAMPLE = """\
example:
  healthagent check primary --url http://127.0.0.1:8008
  healthagent check replica --lag 16MB
exit code: 0 yes, 1 no, 2 usage, 3 the agent cannot be reached
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `check` to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="ask an agent one question; exit 0 yes, 1 no, 2 usage, 3 unreachable",
        description="Ask an agent one question, print its reason, answer by the exit code.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("check", choices=CHECKS, metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--url", help="the agent (default: of the configuration, else 127.0.0.1:8008)")
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration that says where it listens")
    parser.add_argument("--lag", help="for replicas: at most this far behind, such as 16MB or 5s")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the reason; the exit code is the answer."""
    query = f"?{urlencode({'lag': arguments.lag}, quote_via=quote)}" if arguments.lag is not None else ""
    try:
        url = agent_url(arguments.url, arguments.config)
        reply = ask(url, f"/{arguments.check}{query}")
    except BadUrl as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except Unreachable as error:
        sys.stderr.write(f"unreachable: {error}\n")
        return UNREACHABLE
    body = reply.json if isinstance(reply.json, dict) else {}
    verdict = body.get("verdict")
    if reply.status == 400:
        sys.stderr.write(f"{printable(body.get('error', 'bad request'))}\n")
        return USAGE
    if reply.status not in (200, 503):
        why = reply.refusal or f"no healthagent there, it answered {reply.status}"
        sys.stderr.write(f"unreachable: {url}: {why}\n")
        return UNREACHABLE
    said = f"{verdict.get('reason')}: {verdict.get('detail')}" if isinstance(verdict, dict) else reply.status
    sys.stdout.write(f"{printable(said)}\n")
    return YES if reply.status == 200 else NO
