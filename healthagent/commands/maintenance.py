"""`healthagent maintenance`: take this node out of service, and back."""

import argparse
import getpass
import os
import re
import sys

from healthagent.commands.client import BadUrl, Unreachable, agent_url, ask

EXAMPLE = """\
example:
  healthagent maintenance on --for 1h
  healthagent maintenance off
"""
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `maintenance` to the command line."""
    parser = subparsers.add_parser(
        "maintenance",
        help="take this node out of service and back",
        description="Take this node out of service: its checks are 503 `maintenance` until it is over.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("state", choices=("on", "off"))
    parser.add_argument("--for", dest="duration", type=duration, metavar="1h", help="ends by itself then")
    add_words(parser)
    parser.add_argument("--url", help="the agent (default: of the configuration, else 127.0.0.1:8008)")
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration that says where it listens")
    add_token(parser)
    parser.set_defaults(command=run)


def add_words(parser: argparse.ArgumentParser) -> None:
    """Add who does it, and why: for the log, /status and /events."""
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason, for all who look")
    parser.add_argument("--who", default="", metavar="NAME", help="you (default: the user who runs this)")


def words(arguments: argparse.Namespace) -> dict[str, object]:
    """Them, as the agent takes them."""
    who = arguments.who or os.environ.get("SUDO_USER") or _user()
    return {name: text for name, text in (("who", who), ("why", arguments.why)) if text}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's number without a name
        return ""


def add_token(parser: argparse.ArgumentParser) -> None:
    """Add the way to prove oneself to an agent on another machine."""
    parser.add_argument("--token-file", metavar="FILE", help="holds control.token; not needed on loopback")
    parser.add_argument(
        "--ca", metavar="FILE", help="who signed the agent's certificate (default: the system's)"
    )


def duration(text: str) -> float:
    """Read 90s, 5m, 1h or 2d as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h|d)", text)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"want a duration such as 90s, 5m or 1h, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def run(arguments: argparse.Namespace) -> int:
    """Change it and say what is in force; 0, 1 if refused, 2 usage, 3 unreachable."""
    if arguments.state == "off" and arguments.duration is not None:
        sys.stderr.write("--for: goes with `on`\n")
        return 2
    body: dict[str, object] = {"on": arguments.state == "on"}
    if arguments.duration is not None:
        body["seconds"] = arguments.duration
    return post(arguments, "/maintenance", body | words(arguments))


def post(arguments: argparse.Namespace, path: str, body: dict[str, object]) -> int:
    """Send one change to the agent and print what it answers."""
    headers = {}
    try:
        if arguments.token_file is not None:
            with open(arguments.token_file, encoding="utf-8") as file:
                headers["Authorization"] = f"Bearer {file.read().strip()}"
        url = agent_url(arguments.url, arguments.config)
        if headers and url.startswith("http:"):
            sys.stderr.write(
                "the token goes over the network in the clear: better https, or run this on the node\n"
            )
        reply = ask(url, path, "POST", body, headers, arguments.ca)
    except BadUrl as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"--token-file: {error}\n")
        return 2
    except Unreachable as error:
        sys.stderr.write(f"unreachable: {error}\n")
        return 3
    sys.stdout.write(reply.body.decode(errors="replace") + "\n")
    return 0 if reply.status == 200 else 1
