"""The fence hook: a command of the operator's, run while PostgreSQL is primary and must not be.

The agent withdraws traffic; it stops nothing by itself. Once per episode, when one of the
chosen reasons has refused for long enough, it runs the command and reports how that went.
An episode ends at a 200, or when PostgreSQL is no primary any more.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections import Counter
from collections.abc import Callable

from .board import Board
from .config import FenceSettings
from .core.model import Instant, Role, Verdict
from .events import Events, Kind
from .notify import VARIABLES

LOOK_EVERY = 0.25  # seconds
MAX_OUTPUT = 8192  # bytes of its output that are logged; the rest is read and dropped

log = logging.getLogger(__name__)


class Episode:
    """When to run the hook: the rule alone, without clock or process."""

    def __init__(self) -> None:
        self._refused_since: Instant | None = None
        self._ran = False

    def due(self, verdict: Verdict, role: Role | None, settings: FenceSettings, now: Instant) -> bool:
        """Whether the hook is to run now; says so once per episode.

        Without fresh evidence of the role nothing is known: the episode goes on, and nothing is run.
        """
        if verdict.ok or role is Role.REPLICA:
            self._refused_since, self._ran = None, False
            return False
        if role is None:
            return False
        if verdict.reason not in settings.on:
            self._refused_since = None
            return False
        if self._refused_since is None:
            self._refused_since = now
        if self._ran or now - self._refused_since < settings.after:
            return False
        self._ran = True
        return True


class Fence:
    """Watches the verdict and runs the hook: `await fence.run()`, ended by cancelling it."""

    def __init__(
        self, board: Board, settings: FenceSettings, clock: Callable[[], Instant], events: Events
    ) -> None:
        self.settings = settings
        self.runs: Counter[str] = Counter()  # ok, failed, timeout
        self._board = board
        self._clock = clock
        self._events = events
        self._episode = Episode()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            command, now = self.settings.command, self._clock()
            verdict = self._board.primary(now)
            if self._episode.due(verdict, self._board.role(now), self.settings, now) and command:
                await self._execute(command, self._environment(verdict, now))

    def _environment(self, verdict: Verdict, now: Instant) -> dict[str, str]:
        term = self._board.memory.term
        return {
            "HEALTHAGENT_REASON": verdict.reason,
            "HEALTHAGENT_DETAIL": verdict.detail,
            "HEALTHAGENT_NODE": self._board.identity.name,
            "HEALTHAGENT_CLUSTER": self._board.identity.cluster,
            "HEALTHAGENT_ROLE": Role.PRIMARY,
            "HEALTHAGENT_TIMELINE": str(term.timeline) if term else "",
            "HEALTHAGENT_MEMBERS_HEARD": str(self._board.members(now)[1]),
        }

    async def _execute(self, command: tuple[str, ...], environment: dict[str, str]) -> None:
        reason = environment["HEALTHAGENT_REASON"]
        # a PostgreSQL that the hook restarts must not tell the service manager that this agent is ready
        inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        log.warning("fence: %s runs because of %s: %s", command[0], reason, environment["HEALTHAGENT_DETAIL"])
        self._events.add(
            Kind.FENCE, self._clock(), reason="begin", detail=f"{command[0]} runs because of {reason}"
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**inherited, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a group of its own, so that all of it can be killed
            )
        except OSError as error:
            self._report("failed", f"{command[0]} cannot be run: {error.strerror}")
            return
        output = bytearray()
        try:
            async with asyncio.timeout(self.settings.timeout):
                await _read(process, output)
                code = await process.wait()
        except TimeoutError:
            self._report("timeout", f"killed after {self.settings.timeout:g} s", output)
        else:
            self._report("ok" if code == 0 else "failed", f"exit code {code}", output)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it left behind in its group, or all of it

    def _report(self, result: str, what: str, output: bytes | bytearray = b"") -> None:
        self.runs[result] += 1
        said = bytes(output).decode(errors="replace").strip()
        level = logging.INFO if result == "ok" else logging.ERROR
        told = f"; it said: {said!r}" if said else ""
        log.log(level, "fence: %s: %s%s", result, what, told)
        # without what it said: everybody who reaches the agent may read the events
        self._events.add(Kind.FENCE, self._clock(), reason=result, detail=what)


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    """Read all that it says, keep the beginning."""
    assert process.stdout is not None, "it was given a pipe"
    while chunk := await process.stdout.read(4096):
        output += chunk[: max(0, MAX_OUTPUT - len(output))]
