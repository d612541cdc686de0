"""The bridge: look, decide, act, once each `interval`.

If it dies nothing changes: pgpool stays as it is, and /ready goes away.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from healthagent.config.pgpool_sync import PgpoolSyncSettings
from healthagent.core.model import Instant
from healthagent.pgpool import pcp
from healthagent.pgpool.agents import believed
from healthagent.pgpool.assignment import BadInput, answered_wrongly, assign, cluster_of, witnesses
from healthagent.pgpool.conflicts import command_vetoes, conflicts, search_seconds
from healthagent.pgpool.metrics import Counts
from healthagent.pgpool.model import Action, Backend, Observed, Says, Told
from healthagent.pgpool.pcp import PcpError
from healthagent.pgpool.poll import Eyes, Seen, endpoint_of
from healthagent.pgpool.readiness import Look
from healthagent.pgpool.reconcile import Memory, Policy, Round, noted, reconcile

log = logging.getLogger(__name__)

SETTLE_MARGIN = 2.0  # seconds beyond pgpool's search for a primary
LONGEST_SETTLE = 30.0  # a request that is repeated while it still waits in pgpool's queue does no harm

Clock = Callable[[], Instant]


class Bridge:
    """What the loop knows from one round to the next."""

    def __init__(
        self, settings: PgpoolSyncSettings, eyes: Eyes, clock: Clock, *, dry_run: bool = False
    ) -> None:
        self.look: Look | None = None
        self.counts = Counts()
        self._settings = settings
        self._eyes = eyes
        self._clock = clock
        self._dry_run = dry_run
        self._policy = Policy(
            fall=settings.fall,
            rise=settings.rise,
            hold=settings.hold,
            per_minute=settings.per_minute,
            fence=settings.fence,
        )
        self._memory: Memory = {}
        self._cluster = settings.cluster
        self._agents: Mapping[int, str] = {}
        self._layout: Sequence[tuple[str, int]] = ()
        self._settings_known = False
        self._logged: dict[int, Says] = {}
        self._dry: Sequence[Action] = ()

    async def step(self) -> Round | None:
        """One round; None when pgpool did not answer. Raises BadInput when the configuration does not fit."""
        at = self._clock()
        seen = await self._eyes.look()
        self.counts.polls += 1
        if seen.pcp_error is None and not self._settings_known:
            seen = await self._read_settings(seen)
        self._check(seen)
        if seen.pcp_error is not None:
            self._lost(at, seen.pcp_error)
            return None
        observed = [self._observe(backend, seen) for backend in seen.backends]
        decided = reconcile(observed, self._memory, self._clock(), self._policy)
        self._memory = decided.memory
        self._report(Look(at, observed, decided.alarms))
        await self._act(decided.actions)
        return decided

    async def _read_settings(self, seen: Seen) -> Seen:
        """Read pgpool's settings anew after each silence: it may have been restarted with others."""
        try:
            settings = await self._eyes.settings()
        except PcpError as error:
            return replace(seen, pcp_error=str(error))
        self._settings_known = True
        for conflict in conflicts(settings, command_vetoes):
            log.warning("pgpool is set against us: %s", conflict)
        search = search_seconds(settings)
        settle = min(search + SETTLE_MARGIN, LONGEST_SETTLE) if search else LONGEST_SETTLE
        self._policy = replace(self._policy, settle=settle)
        return seen

    def _check(self, seen: Seen) -> None:
        """Assign agents to backends whenever pgpool's list of them is new."""
        layout = [(backend.host, backend.port) for backend in seen.backends]
        fresh = seen.pcp_error is None and layout != self._layout
        problems: list[str] = []
        if fresh:
            self._agents, problems = assign(self._settings, seen.backends)
            problems += witnesses(self._agents, seen.answers)
        if fresh or self._cluster is None or self.counts.polls == 1:
            problems += answered_wrongly(self._cluster, seen.answers)
        if problems:
            raise BadInput(problems)
        if fresh:
            self._layout = layout
            self._memory = {}
            self._tell_assignment()
        if self._cluster is None:
            self._cluster = cluster_of(seen.answers)

    def _tell_assignment(self) -> None:
        """Say who speaks for what, and what is left over on either side."""
        for index, (host, port) in enumerate(self._layout):
            if name := self._agents.get(index):
                log.info("%s is backend %d (%s:%d)", name, index, host, port)
            else:
                log.warning(
                    "backend %d (%s:%d) has no agent: it is never touched, so after a promotion in pgpool it"
                    " stays down; name its agent with --backend NAME=%d",
                    *(index, host, port, index),
                )
        for name, _ in self._settings.agents:
            if name not in self._agents.values():
                log.info("%s speaks for no backend: it counts for majorities only", name)

    def _observe(self, backend: Backend, seen: Seen) -> Observed:
        name = self._agents.get(backend.index)
        live = (seen.live or {}).get(backend.index)
        if name is None:
            return Observed(f"backend {backend.index}", Told(), backend, live)
        return Observed(name, believed(name, self._cluster, seen.answers[name]), backend, live)

    def _lost(self, at: Instant, error: str) -> None:
        self.counts.pcp_errors += 1
        self._settings_known = False
        if self.look is None or self.look.pcp_error is None:
            log.warning("pgpool does not answer, so nothing is done: %s", error)
        self.look = Look(at, pcp_error=error)  # what pgpool thought before is not what it thinks now

    def _report(self, look: Look) -> None:
        """Log what changed."""
        before = self.look or Look(look.at)
        if before.pcp_error is not None:
            log.info("pgpool answers")
        for one in look.observed:
            if self._logged.get(one.index) is not one.told.says:
                log.info("%s (backend %d) says %s: %s", one.name, one.index, one.told.says, one.told.why)
                self._logged[one.index] = one.told.says
        for alarm in look.alarms:
            if alarm not in before.alarms:
                log.error("%s", alarm)
        for alarm in before.alarms:
            if alarm not in look.alarms:
                log.info("over: %s", alarm)
        self.look = look

    async def _act(self, actions: Sequence[Action]) -> None:
        """Send all actions of a round on one connection; what breaks is decided anew from the next look."""
        if self._dry_run:
            if [(a.kind, a.index) for a in actions] != [(a.kind, a.index) for a in self._dry]:
                for action in actions:
                    log.info("dry run, would %s: %s", action.kind, action.why)
            self._dry = actions
        if self._dry_run or not actions:
            return
        try:
            async with pcp.connect(endpoint_of(self._settings), self._settings.timeout) as connection:
                for action in actions:
                    connection.request(action.kind, action.index)
                for action in actions:
                    self._note(action, await connection.outcome(action.kind))
        except PcpError as error:
            self.counts.pcp_errors += 1
            log.warning("pgpool could not be told, so it is tried again: %s", error)

    def _note(self, action: Action, refusal: str | None) -> None:
        if refusal is None:
            self.counts.actions[action.kind] += 1
            log.warning("told pgpool to %s: %s", action.kind, action.why)
        else:
            self.counts.refused[action.kind] += 1
            log.warning("pgpool refused to %s: %s: %s", action.kind, action.why, refusal)
        self._memory = noted(self._memory, action, self._clock(), self._policy, refusal)


async def run_until(
    bridge: Bridge, stop: asyncio.Event, interval: float, clock: Clock, stepped: Callable[[], None]
) -> None:
    """Step each `interval` seconds until `stop` is set, and tell of each step's end. Raises BadInput."""
    while not stop.is_set():
        started_at = clock()
        await bridge.step()
        stepped()
        rest = max(0.0, interval - (clock() - started_at))
        try:
            await asyncio.wait_for(stop.wait(), rest)
        except TimeoutError:
            continue


async def run_once(bridge: Bridge, polls: int, interval: float) -> bool:
    """Look as often as a decision needs, act at most once; returns whether pgpool agrees or was told to."""
    for number in range(polls):
        if number:
            await asyncio.sleep(interval)
        decided = await bridge.step()
        if decided is None or decided.alarms:
            return False
        if decided.actions:
            return bridge.counts.actions.total() == len(decided.actions)
    return True
