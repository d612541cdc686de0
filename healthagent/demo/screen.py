"""What the walk-through shows: explanations, commands with their output, and claims that it checks."""

import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

BOLD, GREEN, RED, DIM, PLAIN = "\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m"
WIDEST = 110
TICK = 0.2  # seconds between two looks at the clock while something takes long


class Ended(Exception):
    """The person at the terminal has seen enough."""


class Screen:
    """Text for a person, or for a log when `out` is no terminal. `pauses`: Enter goes on, q ends."""

    def __init__(self, out: TextIO, *, pauses: bool) -> None:
        self.differed: list[str] = []
        self.checked = 0
        self._out = out
        self._pauses = pauses
        self._terminal = out.isatty()
        self._width = (
            min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST) if self._terminal else WIDEST
        )
        self._steps = 0

    def step(self, title: str, explanation: str) -> None:
        """Begin a step, after a pause."""
        if self._steps and self._pauses:
            self._pause()
        self._steps += 1
        self.write(f"\n{self._paint(BOLD, f'{self._steps}. {title}')}")
        self.say(explanation)

    def say(self, text: str) -> None:
        """Explain something, wrapped."""
        for paragraph in textwrap.dedent(text).strip().split("\n\n"):
            self.write(textwrap.fill(" ".join(paragraph.split()), self._width, break_on_hyphens=False))

    def show(self, lines: Iterable[str]) -> None:
        """Show output as it is, indented; what is too long goes on below, further in."""
        for line in lines:
            words = line.lstrip(" ")
            indent = " " * (4 + len(line) - len(words))
            self.write(
                textwrap.fill(
                    words,
                    self._width,
                    initial_indent=indent,
                    subsequent_indent=f"{indent}    ",
                    break_on_hyphens=False,
                )
            )

    def command(self, words: str, output: str) -> None:
        """Show a command as typed, and what it printed."""
        self.write(self._paint(DIM, f"    $ {words}"))
        self.show(output.splitlines())

    def claim(self, text: str, holds: bool, seen: str = "") -> None:
        """Show a claim of this step, and whether it holds here and now; one that does not fails the demo."""
        self.checked += 1
        verdict = self._paint(GREEN, "ok ") if holds else self._paint(RED, "NOT")
        sentence = text if holds or not seen else f"{text}; seen: {seen}"
        wrapped = textwrap.wrap(sentence, self._width - 6, break_on_hyphens=False)
        self.write(f"  {verdict} " + "\n      ".join(wrapped))
        if not holds:
            self.differed.append(sentence)

    @contextmanager
    def progress(self, doing: str) -> Iterator[None]:
        """Show what takes long, how long it has taken so far (on a terminal), and how long it took."""
        started, done = time.monotonic(), threading.Event()

        def tick() -> None:
            while not done.wait(TICK):
                self._out.write(f"\r{doing} ... {time.monotonic() - started:.1f} s")
                self._out.flush()

        ticker = threading.Thread(target=tick, daemon=True)
        if self._terminal:
            ticker.start()
        else:
            self._out.write(f"{doing} ...")
            self._out.flush()
        try:
            yield
        finally:
            done.set()
            if self._terminal:
                ticker.join()
            again = f"\r{doing} ..." if self._terminal else ""
            self.write(f"{again} {time.monotonic() - started:.1f} s")

    def write(self, text: str) -> None:
        """Write a line."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def _pause(self) -> None:
        self._out.write(self._paint(DIM, "\n[Enter: go on, q: end] "))
        self._out.flush()
        answer = sys.stdin.readline()
        if not answer or answer.strip().lower() in ("q", "quit"):
            raise Ended

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._terminal else text
