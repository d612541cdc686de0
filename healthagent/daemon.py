"""The agent: builds everything, starts it, stops it. The only module that knows all the others."""

import asyncio
import logging
import os
import signal
import socket
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from msgspec import Raw
from prometheus_client import Histogram

from . import __version__
from .agentcheck import AgentCheck
from .alarms import alarms_of
from .board import Board, Identity
from .callers import Callers
from .clock import boottime
from .compatibility import Compatibility
from .config import ConfigError, Settings, reloadable_difference, with_live_keys
from .control import Control
from .core.model import Failure, Instant, Role, Snapshot
from .core.peer import Peer
from .core.replica import current_primary
from .events import EventFile, Events, Kind
from .events import load as load_events
from .fence import Fence
from .history import History
from .journal import Journal
from .keeper import Keeper
from .kubernetes import NoApi, PodApi, RoleLabel, label_families
from .listening import Inherited, Listening
from .metrics import Metrics, Sources
from .notify import Notifier, Watchdog, keep_notified
from .openapi import description
from .peers.addresses import Addresses
from .peers.client import Entry, PeerClient
from .peers.direct import Directs
from .peers.discovery import Discoverer
from .peers.exchange import HEADER, Exchange, key_of
from .peers.listener import PeerListener
from .peers.resolve import Names
from .policy import address_of, policy_of
from .postgres import Poller
from .server.answers import Answers
from .server.events import events_answer
from .server.http import Surface
from .server.limits import raise_file_limit
from .server.page import StatusPage
from .standing import standings
from .statefile import StateError, Stored, boot_id, load, recall
from .takeover import Giver, Holders, Parts, PlaceError, Predecessor, Succession, TakeoverFailed, bind
from .tls import TlsFiles, client_tls, server_tls

log = logging.getLogger(__name__)

TICK = 0.1  # seconds between two looks at the verdicts, for the log and for telling the peers
UNLABELLED = 1.0  # seconds at the end for taking the pod's label away, if that has not worked until then
FAREWELL = 2.0  # seconds of answering `stopping`, so that every checker asks once more before we go


class StartError(Exception):
    """The agent cannot start; the text says what to mend."""


class Agent:
    """One running agent."""

    def __init__(
        self,
        settings: Settings,
        reload: Callable[[], Settings] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.settings = settings
        self._reload = reload
        self.notifier = notifier or Notifier()
        self.watchdog = Watchdog(self.notifier.watchdog, _poll_budget(settings))
        now = boottime()
        boot = boot_id()
        stored = None
        if settings.state_dir is not None:
            stored = _stored(settings.state_dir, settings.cluster)
        self.board = Board(
            Identity(
                name=settings.name,
                cluster=settings.cluster,
                incarnation=str(uuid.uuid4()),
                address=address_of(settings),
                tags=settings.tags,
            ),
            policy_of(settings),
            recall(stored, boot, now, time.time()),
            [Peer(entry.name, witness=entry.witness) for entry in settings.peers],
        )
        self.names = Names(boottime)
        self._signing: Exchange | None = None
        exchange = self._exchange(settings)
        self.client = PeerClient(
            self.board,
            [Entry(entry.name, entry.url) for entry in settings.peers],
            boottime,
            self.names,
            interval=settings.peer.interval,
            timeout=settings.peer.timeout,
            exchange=exchange,
            tls=client_tls(settings),
        )
        self.listener = PeerListener(
            self.board, boottime, exchange, certified_only=settings.tls.client_ca is not None
        )
        self.addresses = Addresses(
            self.board, self.names, lambda: {entry.name: entry.url for entry in self.client.entries}, {}
        )
        durations = {"interval": settings.postgres.interval, "timeout": settings.postgres.timeout}
        self.directs = Directs(self.board, boottime, self.names, **durations)
        self._ask_directly(settings)
        self.poller = (
            None
            if settings.witness
            else Poller(
                settings.postgres.dsn.asyncpg_arguments(),
                self,
                boottime,
                reconnect_every=settings.postgres.reconnect_every,
                **durations,
            )
        )
        token = settings.control.token
        self.events = Events(load_events(settings.state_dir, boot) if settings.state_dir else ())
        self.event_file = EventFile(self.events, settings.state_dir, boot) if settings.state_dir else None
        self.control = Control(self.board, boottime, token.reveal() if token else None, self.events)
        self.journal = Journal(self.board, self.events)
        self.fence = Fence(self.board, settings.fence, boottime, self.events, self.client.answering)
        self.keeper = (
            Keeper(self.board, settings.state_dir, boot, boottime, stored) if settings.state_dir else None
        )
        self.label = self._role_label()
        self.probe_failures: Counter[str] = Counter()
        self.answers = Answers(self.board)
        self.answers.alarms = self.alarms
        self.answers.asked["/events"] = events_answer(self.board, self.events)
        self.history = History(partial(standings, self.board), now)
        self.page = StatusPage(self.board, self.events, self.history, boottime, self.alarms)
        self.answers.urls = self.page.urls = _urls(settings)
        described = Raw(description())
        self.answers.documents["/openapi.json"] = lambda _now: described
        if self.label is not None:
            self.answers.label = self.label.status
        if self.keeper is not None:
            self.answers.history = self.keeper.history
        self.callers = Callers(settings.checks.allow)
        self.tls_files = TlsFiles(lambda: self.settings, self._take_tls)
        self._surface: Surface | None = None
        self._probe_duration: Histogram | None = None
        self._stop = asyncio.Event()
        self._role: Role | None = None
        self._beside = False  # another agent of this node still answers
        self.on_answering: Callable[[], None] = lambda: None
        self.holders = Holders(
            self.board,
            self.journal,
            self.events,
            self.fence,
            self.keeper,
            self.event_file,
            lambda: self._signing,
        )

    async def run(self, predecessor: Predecessor | None = None, inherited: Inherited | None = None) -> None:
        """Run until stopped; raises StartError when a port or the like cannot be had.

        With a predecessor take its place first: TakeoverFailed when that cannot be, Gone when it died
        before. `inherited` are sockets that listen already, of one that did.
        """
        loop = asyncio.get_running_loop()
        connections = raise_file_limit()
        if predecessor is not None:
            inherited = predecessor.sockets
        listening = [Listening(loop, inherited, start=predecessor is None) for _ in range(2)]
        surface = Surface(self.answers, boottime, connections, loop, listening[0], self.callers)
        # its clients come and go within 100 ms: a small share of the descriptors is plenty
        agent_check = AgentCheck(
            self.board, boottime, max(16, connections // 8), loop, listening[1], self.callers
        )
        self._surface = surface
        self._mount(surface)
        await self._listen(surface, agent_check)
        if predecessor is None:
            for one in (one for sockets in (inherited or {}).values() for one in sockets):
                one.close()  # the listeners have copies
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        log.info(
            "%s of cluster %s starts, %d peers, asked on %s",
            self.settings.name,
            self.settings.cluster,
            len(self.settings.peers),
            self.settings.listen,
        )
        failed: TakeoverFailed | None = None
        # a task that raises is a bug and takes the agent down: no verdict is better than a frozen one
        async with asyncio.TaskGroup() as tasks:
            succession = self._succession(predecessor, surface, agent_check)
            running = [tasks.create_task(task, name=name) for name, task in self._gathering().items()]
            try:
                if predecessor is not None and succession is not None:
                    await self._succeed(predecessor, succession)
            except TakeoverFailed as error:
                failed = error
            else:
                answering = self._answering(surface, agent_check)
                running += [tasks.create_task(task, name=name) for name, task in answering.items()]
                self.on_answering()
                await self._stop.wait()
                await self._say_goodbye()
            for task in running:
                task.cancel()
        agent_check.close()
        await surface.close()
        await self.names.close()
        self.notifier.close()
        if failed is not None:
            raise failed

    def _gathering(self) -> dict[str, Coroutine[object, object, None]]:
        """What finds out, and tells no client anything."""
        settings = self.settings
        tasks: dict[str, Coroutine[object, object, None]] = {
            "peers": self.client.run(),
            "addresses": self.addresses.run(),
            "direct": self.directs.run(),
            "tls": self.tls_files.run(),
        }
        if self.poller is not None:
            tasks["postgres"] = self.poller.run()
        if settings.discovery is not None:
            tasks["discovery"] = Discoverer(
                self.board, self.client, settings.discovery, self.names, boottime
            ).run()
        return tasks

    def _answering(
        self, surface: Surface, agent_check: AgentCheck
    ) -> dict[str, Coroutine[object, object, None]]:
        """What only the one agent of this node does."""
        tasks: dict[str, Coroutine[object, object, None]] = {
            "tick": self._tick_for_ever(),
            "reap": surface.crowd.reap(),
            "fence": self.fence.run(),
            "notify": keep_notified(self.notifier, self.watchdog, boottime),
        }
        if self.keeper is not None:
            tasks["keeper"] = self.keeper.run()
        if self.event_file is not None:
            tasks["events"] = self.event_file.run()
        if self.label is not None:
            tasks["label"] = self.label.run()
        if self.settings.state_dir is not None:
            parts = Parts(self.holders, surface, agent_check, self.notifier, boottime)
            try:
                tasks["takeover"] = Giver(bind(self.settings.state_dir), parts).run()
            except PlaceError as error:
                log.warning("this agent cannot be replaced while it runs: %s", error)
        return tasks

    def _succession(
        self, predecessor: Predecessor | None, surface: Surface, agent_check: AgentCheck
    ) -> Succession | None:
        """How to take the other's place; without one this is a start as any other."""
        if predecessor is None:
            self.events.add(Kind.START, boottime(), detail=f"healthagent {__version__}")
            return None
        succession = Succession(predecessor, self.holders, self.client, surface, agent_check, boottime)
        succession.prepare()
        self._signing, self._beside = None, True
        self.listener.exchange = self._exchange(self.settings)
        return succession

    async def _succeed(self, predecessor: Predecessor, succession: Succession) -> None:
        await succession.complete(self.listener.exchange, self._stop.is_set)
        self._beside = False
        took = f"process {os.getpid()} took over from process {predecessor.pid}"
        log.info("%s: it answers now", took)
        self.events.add(Kind.START, boottime(), detail=f"healthagent {__version__}: {took}")
        await predecessor.farewell()

    def _mount(self, surface: Surface) -> None:
        metrics = Metrics(
            self.board,
            boottime,
            Sources(
                checks=surface.checks,
                probe_failures=self.probe_failures,
                verdict_changes=self.journal.changes,
                peer_failures=self.client.failures,
                peer_refusals=self.listener.rejected,
                round_trips=self.client.round_trips,
                haproxy_sessions=surface.haproxy_states.sessions,
                alarms=self.alarms,
                fence_runs=self.fence.runs,
                tasks=lambda: len(asyncio.all_tasks()),
                callers_refused=lambda: self.callers.refused,
                fence_status=lambda: self.fence.last.status if self.fence.last else None,
                more=lambda now: label_families(self.label, now),
            ),
            [Compatibility(self.board, boottime, lambda: self.settings.metrics.compatibility or ())],
        )
        self._probe_duration = metrics.probe_duration
        surface.posts["/maintenance"] = self.control.maintenance
        surface.posts["/override"] = self.control.override

        async def peer(request: BaseRequest) -> StreamResponse:
            answer = await self.listener.tell(request)
            return Response(status=answer.status, body=answer.body, content_type=answer.content_type)

        async def exchange(request: BaseRequest) -> StreamResponse:
            answer, signature = await self.listener.exchange_with(request)
            headers = {HEADER: signature} if signature else None
            return Response(
                status=answer.status, body=answer.body, headers=headers, content_type=answer.content_type
            )

        async def scrape(request: BaseRequest) -> StreamResponse:
            body, content_type = metrics.render(request.headers.get("Accept"))
            return Response(body=body, headers={"Content-Type": content_type})

        surface.pages["/metrics"] = scrape
        surface.pages["/ui"] = self.page
        surface.pages["/peer"] = peer
        surface.exchanges["/peer"] = exchange

    async def _listen(self, surface: Surface, agent_check: AgentCheck) -> None:
        settings = self.settings
        checks, agent, control = settings.checks.listen, settings.agent_check.listen, settings.control.socket
        with _at("tls", settings.tls.cert):
            tls = server_tls(settings)
        with _at("listen", settings.listen):
            await surface.listen(settings.listen.host, settings.listen.port, tls)
        if checks is not None:
            with _at("checks.listen", checks):
                await surface.listen(checks.host, checks.port)
        if agent is not None:
            with _at("agent_check.listen", agent):
                await agent_check.listen(agent.host, agent.port)
        if control is not None:
            with _at("control.socket", control):
                await surface.listen_unix(control)

    async def _tick_for_ever(self) -> None:
        while True:
            self._tick(boottime())
            await asyncio.sleep(TICK)

    def _tick(self, now: Instant) -> None:
        """Look at the verdicts; what changed is logged, and the peers are asked and told at once."""
        if self._beside:
            return
        serving, role = self.board.memory.serving, self.board.role(now)
        changed = self.journal.note(now)
        self.journal.note_ends(now)
        self.journal.note_alarms(self.alarms(), now)
        self.history.look(now)
        if changed or role is not self._role or serving != self.board.memory.serving:
            self._role = role
            self.client.hurry()
            self._show(now)
        if self.label is not None:
            self.label.note(now)

    def _show(self, now: Instant) -> None:
        """The verdict on what this node is, in `systemctl status`."""
        kind, decide = (
            ("replica", self.board.replica) if self._role is Role.REPLICA else ("primary", self.board.primary)
        )
        verdict = decide(now)
        self.notifier.status(f"/{kind} {200 if verdict.ok else 503} {verdict.reason}: {verdict.detail}")

    async def _say_goodbye(self) -> None:
        """Answer `stopping` for a while if anybody may still be sent here, and keep what must be kept."""
        now = boottime()
        sent_here = self.board.primary(now).ok or self.board.replica(now).ok
        log.info("stopping")
        self.notifier.stopping()
        self.events.add(Kind.STOP, now)
        self.board.stop(now)
        self._stop.clear()
        self._tick(now)
        savers = (self.keeper, self.event_file)
        saving = [asyncio.create_task(one.save_now()) for one in savers if one is not None]
        if saving:
            await asyncio.wait(saving, timeout=1.0)
        if sent_here:
            try:
                async with asyncio.timeout(FAREWELL):
                    await self._stop.wait()  # a second signal ends the wait
            except TimeoutError:
                pass
        if self.label is not None:
            await self.label.settle(UNLABELLED)

    def alarms(self) -> list[str]:
        """What is wrong without changing a verdict, one sentence each."""
        state_error = self.keeper.error if self.keeper else None
        found = alarms_of(self.board, state_error, boottime(), self.tls_files.error)
        return found + (self.label.alarms(boottime()) if self.label else [])

    async def _take_tls(self, server: ssl.SSLContext | None, client: ssl.SSLContext | None) -> None:
        self.client.tls = client
        if server is not None and self._surface is not None:
            await self._surface.listening.renew(server)

    def reload(self) -> None:
        """SIGHUP: take what can change while running, and say what cannot."""
        if self._reload is None or self._beside:  # what it was started with is new enough
            return
        self.notifier.reloading()
        self._take_new_settings(self._reload)
        if self.watchdog.tried():  # else the start is not over yet
            self.notifier.ready()  # also after a refusal: the agent goes on as it was

    def _take_new_settings(self, read: Callable[[], Settings]) -> None:
        try:
            settings = read()
        except ConfigError as error:
            problems = "; ".join(error.problems)
            log.warning("reload refused, the old configuration stays: %s", problems)
            detail = f"{len(error.problems)} problems, see the log"  # which may quote the file
            self.events.add(Kind.RELOAD, boottime(), reason="refused", detail=detail)
            return
        difference = reloadable_difference(self.settings, settings)
        for key in difference.restart:
            log.warning("reload: %s takes effect only after a restart", key)
        self._apply(with_live_keys(self.settings, settings))
        taken = ", ".join(difference.taken) or "nothing changed"
        log.info("reloaded: %s", taken)
        self.events.add(Kind.RELOAD, boottime(), reason="taken", detail=taken)

    def _apply(self, settings: Settings) -> None:
        """Put everything in force that can change while running."""
        self.settings, now = settings, boottime()
        self.board.policy = policy_of(settings)
        self.board.identity = replace(self.board.identity, tags=settings.tags, address=address_of(settings))
        if self.poller is not None:
            self.poller.change(
                interval=settings.postgres.interval,
                timeout=settings.postgres.timeout,
                reconnect_every=settings.postgres.reconnect_every,
            )
        self.tls_files.look()
        self.callers.change(settings.checks.allow)
        self.watchdog.budget = _poll_budget(settings)
        self.client.change(interval=settings.peer.interval, timeout=settings.peer.timeout)
        self.client.exchange = self.listener.exchange = self._exchange(settings)
        token = settings.control.token
        self.control.token = token.reveal() if token else None
        self.fence.settings = settings.fence
        self.answers.urls = self.page.urls = _urls(settings)
        self._ask_directly(settings)
        if settings.discovery is None:
            self.board.replace_peers([Peer(entry.name, entry.witness) for entry in settings.peers], now)
            self.client.replace_entries([Entry(entry.name, entry.url) for entry in settings.peers])
        logging.getLogger("healthagent").setLevel(settings.log.level.upper())

    def _role_label(self) -> RoleLabel | None:
        wanted = self.settings.kubernetes
        if wanted.role_label is None:
            return None
        try:
            api = PodApi(wanted, self.names)
        except NoApi as error:
            raise StartError(str(error)) from error
        return RoleLabel(self.board, api, boottime, wanted.role_label, uid=wanted.uid, timeout=wanted.timeout)

    def _exchange(self, settings: Settings) -> Exchange | None:
        """The one exchange of this start: a new one would count from zero and look like a replay."""
        key = key_of(settings)
        if key is None:
            return None
        if self._signing is None:
            self._signing = Exchange(key, self.board.identity.incarnation)
        self._signing.change_secret(key)
        return self._signing

    def _ask_directly(self, settings: Settings) -> None:
        self.addresses.configured = {
            entry.name: str(entry.postgres) for entry in settings.peers if entry.postgres
        }
        self.directs.replace(
            {entry.name: entry.dsn.asyncpg_arguments() for entry in settings.peers if entry.dsn}
        )

    # The PostgreSQL poller tells us.

    def observe(self, snapshot: Snapshot) -> None:
        now = boottime()
        self.board.observe(self.names.with_upstream(snapshot), now)
        if self.keeper is not None:
            found = current_primary(self.board.view(now), self.board.policy)
            own = self.settings.name if snapshot.role is Role.PRIMARY else None
            self.keeper.follow(snapshot, own or (found[0].label if found else None))
        self._tick(now)

    def observe_failure(self, failure: Failure) -> None:
        now = boottime()
        self.probe_failures[failure.reason] += 1
        self.board.observe_failure(failure, now)
        self._tick(now)

    def observe_new_connection(self, failure: Failure | None) -> None:
        if failure is not None:
            self.probe_failures[failure.reason] += 1
        self.board.observe_new_connection(failure, boottime())

    def probe_took(self, seconds: float) -> None:
        self.watchdog.progress(boottime())
        if self._probe_duration is not None:
            self._probe_duration.observe(seconds)


@contextmanager
def _at(key: str, place: object) -> Iterator[None]:
    """Name the setting that cannot be had."""
    try:
        yield
    except OSError as error:
        # the system's own words, without those that asyncio puts before them
        number = None if isinstance(error, socket.gaierror | ssl.SSLError) else error.errno
        why = (error.strerror or error) if number is None else os.strerror(number)
        raise StartError(f"{key}: {place}: {why}") from error


def _poll_budget(settings: Settings) -> float | None:
    """Seconds that one poll and the pause after it may take; None where nothing is polled."""
    return None if settings.witness else settings.postgres.interval + settings.postgres.timeout


def _stored(directory: Path, cluster: str) -> Stored | None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"state_dir: {directory} cannot be created: {error.strerror}. Create it for this user, name "
            f"another, or set state_dir: null, with which restarts forget to where clients were sent"
        ) from error
    try:
        return load(directory, cluster)
    except StateError as error:
        raise StartError(str(error)) from error


def _urls(settings: Settings) -> dict[str, str]:
    scheme = "https" if settings.tls.cert else "http"
    own = f"{scheme}://{settings.listen}"
    return {settings.name: own, **{entry.name: entry.url for entry in settings.peers}}
