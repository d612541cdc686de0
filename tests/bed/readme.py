"""The examples of README.md: its fenced blocks, the commands in them, and the shape of what they print.

A block that a test runs has `<!-- run: NAME -->` on the line above it; blocks of one name share an
environment and run in order. In a console block a line after "$ " is a command, the lines below it are its
output: numbers and blanks may differ, `...` stands for anything, alone on a line for any lines.
"""

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
RUN = re.compile(r"<!-- run: ([\w ]+) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block; `place` is the line of README.md that opens it, `name` None when no test runs it."""

    place: int
    language: str
    text: str
    name: str | None


@dataclass(frozen=True)
class Command:
    """One command of a console block, and what it should print."""

    typed: str
    printed: str


def blocks() -> list[Block]:
    """Every fenced block of the README."""
    found = []
    lines = README.read_text().splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if line.startswith("```") and opened is None:
            opened = number
        elif line == "```" and opened is not None:
            marker = RUN.fullmatch(lines[opened - 1])
            text = "\n".join(lines[opened + 1 : number]) + "\n"
            found.append(Block(opened + 1, lines[opened][3:], text, marker[1] if marker else None))
            opened = None
    assert opened is None, f"README.md:{opened}: a block that is not closed"
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a console block, in order."""
    first, *rest = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not first, f"README.md:{block.place}: a console block begins with a command"
    return [Command(*part.split("\n", 1)) for part in rest]


def shape(printed: str) -> "re.Pattern[str]":
    """A pattern for output like this."""
    pattern = ""
    for line in printed.splitlines():
        if line == "...":
            pattern += r"(?:.*\n)*"
            continue
        parts = (re.sub(r"(\\ )+", r"[ ]+", re.escape(part)) for part in line.split("..."))
        pattern += re.sub(r"\d+", r"\\d+", ".*".join(parts)) + r"[ ]*\n"
    return re.compile(pattern)
