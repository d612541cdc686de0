"""What fencing/*.sh need on a machine without sudo, and the words that fit a node of the bed."""

import os
from pathlib import Path

from healthagent.demo.binaries import environment, server_owner
from healthagent.demo.postgres import Node

FENCING = Path(__file__).parents[2] / "fencing"


def write(path: Path, script: str) -> None:
    """Make a program."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def tools_in(folder: Path) -> Path:
    """Fill a folder for the PATH: sudo as the scripts call it."""
    folder.mkdir()
    write(
        folder / "sudo",
        '[ "$1 $2" = "-n -u" ] || { echo "sudo: called with $*" >&2; exit 99; }\n'
        'user=$3; shift 3; exec setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"',
    )
    return folder


def variables(node: Node, tools: Path) -> dict[str, str]:
    """The environment of a script: these tools and this node's PostgreSQL come first."""
    path = f"{tools}:{node.binaries.client}:{os.environ['PATH']}"
    return environment(node.binaries.bin) | {"PATH": path}


def as_owner() -> list[str]:
    """How root reaches what belongs to the server's user; nothing when we are that user."""
    return [] if server_owner() is None else ["--as", "postgres"]


def stop_arguments(node: Node) -> list[str]:
    return ["--data", str(node.data), "--bin", str(node.binaries.bin), *as_owner()]
