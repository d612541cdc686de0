"""`healthagent list`: the cluster as one agent sees it, like `patronictl list`."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from healthagent.commands.client import BadUrl, Unreachable, agent_url, ask, printable
from healthagent.commands.watch import Watch

COLUMNS = ("Member", "Host", "Role", "State", "TL", "Lag", "Writes", "Reads", "Reason")
GREEN, RED, YELLOW, PLAIN = "\033[32m", "\033[31m", "\033[33m", "\033[0m"
Row = Mapping[str, object]

EXAMPLE = """\
example:
  healthagent list --url http://10.0.0.11:8008
  healthagent list --watch
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `list` to the command line."""
    parser = subparsers.add_parser(
        "list",
        help="show the cluster as an agent sees it",
        description="Show the cluster as one agent sees it: who may write, who may read, and why not.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="the agent (default: of the configuration, else 127.0.0.1:8008)")
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration that says where it listens")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table once, or again and again."""
    try:
        url = agent_url(arguments.url, arguments.config)
    except BadUrl as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments.watch:
        watch = Watch(url, lambda: rows_of(url), lambda rows, color: table(rows, color=color))
        return watch.run(sys.stdout, as_json=arguments.format == "json")
    try:
        rows = rows_of(url)
    except Unreachable as error:
        sys.stderr.write(f"unreachable: {error}\n")
        return 3
    if arguments.format == "json":
        print(json.dumps(rows))
    else:
        print(table(rows, color=sys.stdout.isatty()))
    return 0


def rows_of(url: str) -> list[Row]:
    """Every member as the agent at `url` sees it, itself included."""
    status, cluster = ask(url, "/status"), ask(url, "/cluster")
    refused = status.refusal or cluster.refusal
    if refused is not None:  # such as a caller that is not in checks.allow
        raise Unreachable(f"{url}: {refused}")
    try:
        return _rows(status.json, cluster.json)
    except (KeyError, TypeError):  # another server's JSON, or none
        raise Unreachable(f"{url}: no healthagent of this version there") from None


def _rows(status: Any, cluster: Any) -> list[Row]:
    places = {str(member["name"]): member for member in cast(list[Row], cluster["members"])}
    verdicts = status["verdicts"]
    own: Row = {
        "name": status["name"],
        "witness": status["witness"],
        "writes": verdicts["primary"]["ok"],
        "reads": verdicts["replica"]["ok"],
        "reason": status["reason"],
        "detail": status["detail"],
        "role": status["role"],
        "lag": status["postgres"]["lag_bytes"],
    }
    peers = [
        {
            "name": peer["name"],
            "witness": peer["witness"],
            "writes": peer["serving"] if peer["heard"] else None,
            "reads": peer["replica"] and peer["replica"]["ok"],
            "reason": _reason(peer),
            "detail": peer["detail"],
            "role": peer["role"],
        }
        for peer in status["peers"]
        if peer["alarm"] != "self"
    ]
    return [_row(member, places.get(str(member["name"]), {})) for member in [own, *peers]]


def _reason(peer: Row) -> object:
    """Why, in the words that belong to the peer's role."""
    if not peer["heard"]:
        return peer["alarm"] or "silent"
    replica = cast(Row | None, peer["replica"])
    return replica["reason"] if peer["role"] == "replica" and replica else peer["reason"]


def _row(member: Row, place: Row) -> Row:
    # /cluster calls a node that says nothing a replica, as Patroni does: a dead primary was none
    known = (place.get("role") or member["role"]) if member["role"] else "unknown"
    role = "witness" if member["witness"] else known
    return {
        "Member": member["name"],
        "Host": f"{place['host']}:{place['port']}" if "host" in place else "",
        "Role": role,
        "State": place.get("state", "" if member["witness"] else "unknown"),
        "TL": place.get("timeline") or "",
        "Lag": _lag(member, place),
        "Writes": _yes(member["writes"]),
        "Reads": _yes(member["reads"]),
        "Reason": member["reason"],
    }


def _lag(member: Row, place: Row) -> object:
    """Bytes that are not replayed: what the limits are about. Patroni's `lag` counts to what was received."""
    behind = place.get("replay_lag", "")
    return member["lag"] if behind == "unknown" and member.get("lag") is not None else behind


def _yes(value: object) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def table(rows: Sequence[Row], *, color: bool) -> str:
    """The rows under their headings, as wide as they need to be."""
    cells = [[_shown(row[column]) for column in COLUMNS] for row in rows]
    widths = [max(len(line[at]) for line in [list(COLUMNS), *cells]) for at in range(len(COLUMNS))]
    lines = ["  ".join(title.ljust(width) for title, width in zip(COLUMNS, widths, strict=True)).rstrip()]
    for line in cells:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if color and not os.environ.get("NO_COLOR"):
            padded = [_painted(cell) for cell in padded]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _painted(cell: str) -> str:
    paint = {"yes": GREEN, "no": RED, "unknown": YELLOW}.get(cell.strip())
    return cell if paint is None else f"{paint}{cell}{PLAIN}"


def _shown(value: object) -> str:
    """A cell."""
    return printable(value)[:60]
