"""The fence hook: a command of the operator's, run while PostgreSQL is primary and must not be.

The agent withdraws traffic; it stops nothing by itself. Once per episode, when one of the
chosen reasons has refused for long enough, it runs the command and reports how that went.
An episode ends at a 200, or when PostgreSQL is no primary any more.

It is not run for a failure of the agent itself: the wait counts only what was seen without a
gap (an agent that was frozen, or that lost sight of its PostgreSQL, waits anew), and isolation
counts only as silence of the network (a peer that answers what this agent cannot read, or that
it lacks the means to ask, is not silent).
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable

from healthagent.board import Board
from healthagent.config import FenceSettings
from healthagent.core.members import majority
from healthagent.core.model import Instant, Reason, Role, Verdict
from healthagent.events import Events, Kind
from healthagent.hook import Outcome, Run
from healthagent.notify import VARIABLES
from healthagent.offloop import call

LOOK_EVERY = 0.25  # seconds
BLIND = 1.5  # seconds between two looks: more is an agent that was frozen, not one that is busy
# of the agent's own: a hook that prints its environment would log them
SECRETS = (
    *("HEALTHAGENT_PEER_SECRET", "HEALTHAGENT_CONTROL_TOKEN", "HEALTHAGENT_PEERS"),
    *("HEALTHAGENT_POSTGRES_PASSWORD", "HEALTHAGENT_POSTGRES_DSN", "PGPASSWORD"),
)
# a PostgreSQL that the hook restarts must not tell the service manager that this agent is ready
WITHHELD = frozenset((*SECRETS, *VARIABLES))

log = logging.getLogger(__name__)


class Episode:
    """When to run the hook: the rule alone, without clock or process."""

    def __init__(self) -> None:
        self._refused_since: Instant | None = None
        self._looked_at: Instant | None = None
        self.ran = False

    def due(self, verdict: Verdict, role: Role | None, settings: FenceSettings, now: Instant) -> bool:
        """Whether the hook is to run now: until `begun` says that it did, once per episode."""
        blind = self._looked_at is not None and now - self._looked_at > BLIND
        self._looked_at = now
        if verdict.ok or role is Role.REPLICA:
            self.ran = False
        if verdict.ok or role is not Role.PRIMARY or verdict.reason not in settings.on:
            # without fresh evidence of the role nothing is known: the episode goes on, the wait begins anew
            self._refused_since = None
            return False
        if self._refused_since is None or blind:
            self._refused_since = now
        return not self.ran and now - self._refused_since >= settings.after

    def begun(self) -> None:
        """Note that it runs: not again in this episode."""
        self.ran = True


class Fence:
    """Watches the verdict and runs the hook: `await fence.run()`, ended by cancelling it.

    `answering` counts the peers that answer at all, or could not be asked for want of something here.
    """

    def __init__(
        self,
        board: Board,
        settings: FenceSettings,
        clock: Callable[[], Instant],
        events: Events,
        answering: Callable[[], int] = lambda: 0,
    ) -> None:
        self.settings = settings
        self.runs: Counter[str] = Counter()  # ok, failed, timeout
        self.last: Outcome | None = None
        self._board = board
        self._clock = clock
        self._events = events
        self._answering = answering
        self._episode = Episode()
        self._spared = False
        self._hook: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the command runs now."""
        return self._hook is not None and not self._hook.done()

    @property
    def ran(self) -> bool:
        """Whether it has run in this episode: a successor must not run it again."""
        return self._episode.ran

    @ran.setter
    def ran(self, ran: bool) -> None:
        self._episode.ran = ran

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                found = self._look()
                if found is not None and not self.running:
                    self._episode.begun()
                    self._hook = tasks.create_task(self._execute(*found), name="fence hook")

    def _look(self) -> tuple[tuple[str, ...], dict[str, str]] | None:
        """What to run now, and in which environment."""
        command, now = self.settings.command, self._clock()
        verdict = self._board.primary(now)
        due = self._episode.due(verdict, self._board.role(now), self.settings, now)
        if not due or command is None:
            self._spared = self._spared and due
            return None
        if verdict.reason is Reason.ISOLATED and self._is_own_fault(now):
            if not self._spared:
                why = "not run: peers answer, but this agent cannot read or ask them"
                log.error("fence: %s: %s", why, verdict.detail)
                self._events.add(Kind.FENCE, now, reason="spared", detail=why)
            self._spared = True
            return None
        self._spared = False
        return command, self._environment(verdict, now)

    def _is_own_fault(self, now: Instant) -> bool:
        """Whether a majority can be reached and yet is not heard: a wrong secret, an expired certificate."""
        return 1 + self._answering() >= majority(self._board.members(now)[0])

    def _environment(self, verdict: Verdict, now: Instant) -> dict[str, str]:
        term = self._board.memory.term
        inherited = {name: value for name, value in os.environ.items() if name not in WITHHELD}
        return inherited | {
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
        log.warning("fence: %s runs because of %s: %s", command[0], reason, environment["HEALTHAGENT_DETAIL"])
        why = f"{command[0]} runs because of {reason}"
        self._events.add(Kind.FENCE, self._clock(), reason="begin", detail=why)
        run = Run(command, environment, self.settings.timeout)
        try:
            self._report(await call(run, "fence"))
            await call(run.linger, "fence")
        finally:
            run.kill()  # the agent stops

    def _report(self, outcome: Outcome) -> None:
        self.runs[outcome.result] += 1
        self.last = outcome
        level = logging.INFO if outcome.result == "ok" else logging.ERROR
        said = f"; it said: {outcome.output!r}" if outcome.output else ""
        log.log(level, "fence: %s: %s%s", outcome.result, outcome.why, said)
        # without what it said: everybody who reaches the agent may read the events
        self._events.add(Kind.FENCE, self._clock(), reason=outcome.result, detail=outcome.why)
