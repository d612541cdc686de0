"""One running agent, from its first task to its last answer."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine

from healthagent import __version__
from healthagent.clock import boottime
from healthagent.config import Settings
from healthagent.core.model import Instant, Role
from healthagent.daemon.doors import Doors
from healthagent.daemon.parts import Parts
from healthagent.daemon.reload import take_new_settings
from healthagent.events import Kind
from healthagent.listening import Inherited
from healthagent.notify import Notifier, keep_notified
from healthagent.peers.discovery import Discoverer
from healthagent.takeover import Giver, PlaceError, Predecessor, Replaceable, Succession, TakeoverFailed, bind

log = logging.getLogger(__name__)

TICK = 0.1  # seconds between two looks at the verdicts, for the log and for telling the peers
UNLABELLED = 1.0  # seconds at the end for taking the pod's label away, if that has not worked until then
FAREWELL = 2.0  # seconds of answering `stopping`, so that every checker asks once more before we go
FAREWELL_TO_FEW = 1.0  # the same where nobody was sent: who watches still hears why the agent goes

Tasks = dict[str, Coroutine[object, object, None]]


def _others(settings: Settings) -> str:
    """How many peers it has, or where they come from."""
    if settings.discovery is not None:
        return f"peers found as {settings.discovery.dns or settings.discovery.srv}"
    count = len(settings.peers)
    return "1 peer" if count == 1 else f"{count or 'no'} peers"


class Agent:
    """One running agent."""

    def __init__(
        self,
        settings: Settings,
        reload: Callable[[], Settings] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.notifier = notifier or Notifier()
        self.on_answering: Callable[[], None] = lambda: None
        self._reload = reload
        self._stop = asyncio.Event()
        self._said: object = None  # what the peers were told last, as far as it is theirs to know at once
        self._beside = False  # another agent of this node still answers
        self.parts = Parts(settings, self.notifier, self._tick)

    async def run(self, predecessor: Predecessor | None = None, inherited: Inherited | None = None) -> None:
        """Run until stopped; raises StartError when a port or the like cannot be had.

        With a predecessor take its place first: TakeoverFailed when that cannot be, Gone when it died
        before. `inherited` are sockets that listen already, of one that did.
        """
        if predecessor is not None:
            inherited = predecessor.sockets
        doors = Doors(self.parts, inherited, start=predecessor is None)
        await doors.open()
        if predecessor is None:
            for one in (one for sockets in (inherited or {}).values() for one in sockets):
                one.close()  # the listeners have copies
        self._heed_signals()
        settings = self.parts.settings
        log.info(
            "%s of cluster %s starts, %s, asked on %s",
            settings.name,
            settings.cluster,
            _others(settings),
            settings.listen,
        )
        failed: TakeoverFailed | None = None
        # a task that raises is a bug and takes the agent down: no verdict is better than a frozen one
        async with asyncio.TaskGroup() as tasks:
            succession = self._succession(predecessor, doors)
            running = [tasks.create_task(task, name=name) for name, task in self._gathering().items()]
            try:
                if predecessor is not None and succession is not None:
                    await self._succeed(predecessor, succession)
            except TakeoverFailed as error:
                failed = error
            else:
                running += [
                    tasks.create_task(task, name=name) for name, task in self._answering(doors).items()
                ]
                self.on_answering()
                await self._stop.wait()
                await self._say_goodbye()
            for task in running:
                task.cancel()
        await doors.close()
        await self.parts.names.close()
        self.notifier.close()
        if failed is not None:
            raise failed

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _gathering(self) -> Tasks:
        """What finds out, and tells no client anything."""
        parts = self.parts
        tasks: Tasks = {
            "peers": parts.client.run(),
            "addresses": parts.addresses.run(),
            "direct": parts.directs.run(),
            "tls": parts.tls_files.run(),
        }
        if parts.poller is not None:
            tasks["postgres"] = parts.poller.run()
        if parts.settings.discovery is not None:
            tasks["discovery"] = Discoverer(
                parts.board, parts.client, parts.settings.discovery, parts.names, boottime
            ).run()
        return tasks

    def _answering(self, doors: Doors) -> Tasks:
        """What only the one agent of this node does."""
        parts = self.parts
        tasks: Tasks = {
            "tick": self._tick_for_ever(),
            "reap": doors.surface.crowd.reap(),
            "fence": parts.fence.run(),
            "notify": keep_notified(self.notifier, parts.watchdog, boottime),
        }
        if parts.keeper is not None:
            tasks["keeper"] = parts.keeper.run()
        if parts.event_file is not None:
            tasks["events"] = parts.event_file.run()
        if parts.label is not None:
            tasks["label"] = parts.label.run()
        if parts.settings.state_dir is not None:
            this = Replaceable(parts.holders, doors.surface, doors.agent_check, self.notifier, boottime)
            try:
                tasks["takeover"] = Giver(bind(parts.settings.state_dir), this).run()
            except PlaceError as error:
                log.warning("this agent cannot be replaced while it runs: %s", error)
        return tasks

    def _succession(self, predecessor: Predecessor | None, doors: Doors) -> Succession | None:
        """How to take the other's place; without one this is a start as any other."""
        parts = self.parts
        if predecessor is None:
            parts.events.add(Kind.START, boottime(), detail=f"healthagent {__version__}")
            return None
        succession = Succession(
            predecessor, parts.holders, parts.client, doors.surface, doors.agent_check, boottime
        )
        succession.prepare()
        parts.signing, self._beside = None, True
        parts.listener.exchange = parts.exchange()
        return succession

    async def _succeed(self, predecessor: Predecessor, succession: Succession) -> None:
        await succession.complete(self.parts.listener.exchange, self._stop.is_set)
        self._beside = False
        took = f"process {os.getpid()} took over from process {predecessor.pid}"
        log.info("%s: it answers now", took)
        self.parts.events.add(Kind.START, boottime(), detail=f"healthagent {__version__}: {took}")
        await predecessor.farewell()

    async def _tick_for_ever(self) -> None:
        while True:
            self._tick(boottime())
            await asyncio.sleep(TICK)

    def _tick(self, now: Instant) -> None:
        """Look at the verdicts; what changed is logged, and the peers are asked and told at once."""
        if self._beside:
            return
        parts, board = self.parts, self.parts.board
        changed = parts.journal.note(now)
        parts.journal.note_ends(now)
        parts.journal.note_alarms(parts.alarms(), now)
        parts.history.look(now)
        said = (board.role(now), board.memory.serving, board.memory.yields_to)
        if changed or said != self._said:
            self._said = said
            parts.client.hurry()
            self._show(now)
        if parts.label is not None:
            parts.label.note(now)

    def _show(self, now: Instant) -> None:
        """The verdict on what this node is, in `systemctl status`."""
        board = self.parts.board
        kind, decide = (
            ("replica", board.replica) if board.role(now) is Role.REPLICA else ("primary", board.primary)
        )
        verdict = decide(now)
        self.notifier.status(f"/{kind} {200 if verdict.ok else 503} {verdict.reason}: {verdict.detail}")

    async def _say_goodbye(self) -> None:
        """Answer `stopping` for a while, longer if clients are sent here, and keep what must be kept."""
        parts, board, now = self.parts, self.parts.board, boottime()
        farewell = FAREWELL if board.primary(now).ok or board.replica(now).ok else FAREWELL_TO_FEW
        log.info("stopping")
        self.notifier.stopping()
        parts.events.add(Kind.STOP, now)
        board.stop(now)
        self._stop.clear()
        self._tick(now)
        savers = (parts.keeper, parts.event_file)
        saving = [asyncio.create_task(one.save_now()) for one in savers if one is not None]
        if saving:
            await asyncio.wait(saving, timeout=1.0)
        try:
            async with asyncio.timeout(farewell):
                await self._stop.wait()  # a second signal ends the wait
        except TimeoutError:
            pass
        if parts.label is not None:
            await parts.label.settle(UNLABELLED)

    def reload(self) -> None:
        """SIGHUP: take what can change while running, and say what cannot."""
        if self._reload is None or self._beside:  # what it was started with is new enough
            return
        self.notifier.reloading()
        take_new_settings(self.parts, self._reload)
        if self.parts.watchdog.tried():  # else the start is not over yet
            self.notifier.ready()  # also after a refusal: the agent goes on as it was
