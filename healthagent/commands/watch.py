"""`healthagent list --watch`: the table each second: in place on a terminal, one by one in a pipe."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TextIO

from healthagent.commands.client import Unreachable

HOME, END_OF_LINE, BELOW = "\033[H", "\033[K", "\033[J"
CLEAR, DIM, PLAIN = "\033[H\033[2J", "\033[2m", "\033[0m"
EVERY = 1.0  # seconds
Row = Mapping[str, object]


class Watch:
    """Shows what an agent answers, each second, until Ctrl-C."""

    def __init__(
        self, url: str, ask: Callable[[], Sequence[Row]], spell: Callable[[Sequence[Row], bool], str]
    ) -> None:
        self._url = url
        self._ask = ask
        self._spell = spell  # rows, in colour or not -> text
        self._last: tuple[datetime, Sequence[Row]] | None = None  # the last answer
        self._silent_since: datetime | None = None

    def run(self, out: TextIO, *, as_json: bool) -> int:
        """Until the person at the keyboard, or the reader of the pipe, has seen enough."""
        terminal = out.isatty() and not as_json
        if terminal:
            out.write(CLEAR)
        next_at = time.monotonic()
        try:
            while True:
                text = self._look(terminal, as_json)
                out.write(self._placed(text) if terminal else text)
                out.flush()
                now = time.monotonic()
                next_at = max(next_at + EVERY, now)
                time.sleep(next_at - now)
        except KeyboardInterrupt:  # how it is meant to end
            out.write("\n" if terminal else "")
            return 0

    def _look(self, terminal: bool, as_json: bool) -> str:
        """What to show now."""
        now = datetime.now().astimezone()
        try:
            rows = self._ask()
        except Unreachable as error:
            self._silent_since = self._silent_since or now
            if terminal:
                return self._silence(error, now)
            sys.stderr.write(f"unreachable: {error}\n")
            return ""
        self._silent_since, self._last = None, (now, rows)
        if as_json:
            return f"{json.dumps(rows)}\n"
        if terminal:
            return f"{self._url} at {now:%H:%M:%S}, Ctrl-C ends\n\n{self._spell(rows, True)}"
        return f"{now.isoformat(timespec='seconds')}\n{self._spell(rows, False)}\n\n"

    def _silence(self, error: Unreachable, now: datetime) -> str:
        """No answer; the last one is shown as what it is."""
        assert self._silent_since is not None, "it is set before"
        seconds = (now - self._silent_since).total_seconds()
        lines = [f"{self._url} does not answer for {seconds:.0f} s", str(error)]
        if self._last is not None:
            at, rows = self._last
            lines += [
                "",
                f"{DIM}Its last answer, of {at:%H:%M:%S}:",
                "",
                f"{self._spell(rows, False)}{PLAIN}",
            ]
        return "\n".join(lines)

    @staticmethod
    def _placed(text: str) -> str:
        """Over what stood there, line by line: what stays the same does not flicker."""
        columns, rows = shutil.get_terminal_size()
        lines: list[str] = []
        used = 0
        for line in text.split("\n"):
            used += max(1, -(-_width(line) // columns))
            if used >= rows:  # the last row is for the cursor: a screen that scrolls cannot be written over
                lines[-1:] = ["..."]
                break
            lines.append(line)
        return HOME + "".join(f"{line}{END_OF_LINE}\n" for line in lines) + BELOW


def _width(line: str) -> int:
    """Columns of a line, without what colours it."""
    visible, escape = 0, False
    for character in line:
        if escape:
            escape = character != "m"
        elif character == "\033":
            escape = True
        else:
            visible += 1
    return visible
