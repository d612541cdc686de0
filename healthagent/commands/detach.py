"""Leaving a process behind: whoever started it waits until it has begun to work, or failed.

Forked twice, as daemon(7) has it: the one that stays belongs to process 1, which is told when it ends, and
the standard streams stay as they are: its log goes where its starter's went.
"""

import os

ANSWERING = b"\0"


class Report:
    """What becomes of the start; for a process that nobody waits for, nothing is reported."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe

    def answering(self) -> None:
        """It works: let the one that waits go."""
        self._tell(ANSWERING)

    def failed(self, code: int) -> int:
        """It failed, with this exit code, which is returned."""
        self._tell(bytes([code]))
        return code

    def _tell(self, word: bytes) -> None:
        if self._pipe is not None:
            os.write(self._pipe, word)
            os.close(self._pipe)
            self._pipe = None


def detach() -> Report:
    """Go on in another process; this one ends when that one has reported, with the code that it gave."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(reader)
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        return Report(writer)
    os.close(writer)
    os.waitpid(middle, 0)
    told = os.read(reader, 1)
    os._exit(told[0] if told else 1)  # nothing: it died
