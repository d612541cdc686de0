"""Everything that one agent is made of, built from its settings. Nothing runs yet."""

import ssl
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Raw

from healthagent.alarms import alarms_of
from healthagent.board import Board, Identity
from healthagent.callers import Callers
from healthagent.clock import boottime
from healthagent.config import Settings
from healthagent.control import Control
from healthagent.core.peer import Peer
from healthagent.daemon.observer import Observer
from healthagent.events import EventFile, Events
from healthagent.events import load as load_events
from healthagent.fence import Fence
from healthagent.history import History
from healthagent.journal import Journal
from healthagent.keeper import Keeper
from healthagent.kubernetes import NoApi, PodApi, RoleLabel
from healthagent.notify import Notifier, Watchdog
from healthagent.openapi import description
from healthagent.peers.addresses import Addresses
from healthagent.peers.client import Entry, PeerClient
from healthagent.peers.direct import Directs
from healthagent.peers.exchange import Exchange, key_of
from healthagent.peers.listener import PeerListener
from healthagent.peers.resolve import Names
from healthagent.policy import address_of, own_url, policy_of
from healthagent.postgres import Poller
from healthagent.server.answers import Answers
from healthagent.server.events import events_answer
from healthagent.server.page import StatusPage
from healthagent.server.places import Place
from healthagent.standing import standings
from healthagent.statefile import StateError, Stored, boot_id, load, recall
from healthagent.takeover import Holders
from healthagent.tls import TlsFiles, client_tls


class StartError(Exception):
    """The agent cannot start; the text says what to mend."""


class Parts:
    """The parts of one agent, and what must be the same in several of them.

    `looked` is called after every word of PostgreSQL's. Raises StartError.
    """

    def __init__(self, settings: Settings, notifier: Notifier, looked: Callable[[float], None]) -> None:
        self.settings = settings
        now, boot = boottime(), boot_id()
        stored = None if settings.state_dir is None else _stored(settings.state_dir, settings.cluster)
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
        self._build_memory(boot, stored)
        self._build_peers()
        self._build_probe(notifier, looked)
        token = settings.control.token
        self.control = Control(self.board, boottime, token.reveal() if token else None, self.events)
        if self.keeper is not None:
            self.control.why_unsaved = self.keeper.why_unsaved
        self.fence = Fence(self.board, settings.fence, boottime, self.events, self.client.answering)
        self.callers = Callers(settings.checks.allow)
        self.tls_files = TlsFiles(lambda: self.settings, self._take_tls)
        self.renew: Callable[[ssl.SSLContext], Awaitable[None]] | None = None  # of who listens with TLS
        self.label = self._role_label()
        self.history = History(partial(standings, self.board), now)
        self._build_answers()
        self.holders = Holders(
            self.board,
            self.journal,
            self.events,
            self.fence,
            self.keeper,
            self.event_file,
            lambda: self.signing,
        )

    def _build_memory(self, boot: str, stored: Stored | None) -> None:
        """What is told of this agent later, and what outlives it."""
        directory = self.settings.state_dir
        self.events = Events(load_events(directory, boot) if directory else ())
        self.event_file = EventFile(self.events, directory, boot) if directory else None
        self.journal = Journal(self.board, self.events)
        self.keeper = Keeper(self.board, directory, boot, boottime, stored) if directory else None

    def _build_peers(self) -> None:
        settings = self.settings
        self.names = Names(boottime)
        self.signing: Exchange | None = None
        exchange = self.exchange()
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
        self.directs = Directs(
            self.board,
            boottime,
            self.names,
            interval=settings.postgres.interval,
            timeout=settings.postgres.timeout,
        )
        self.ask_directly()

    def _build_probe(self, notifier: Notifier, looked: Callable[[float], None]) -> None:
        settings = self.settings
        self.watchdog = Watchdog(notifier.watchdog, poll_budget(settings))
        self.observer = Observer(self.board, self.names, self.keeper, self.watchdog, boottime, looked)
        self.poller = (
            None
            if settings.witness
            else Poller(
                settings.postgres.dsn.asyncpg_arguments(),
                self.observer,
                boottime,
                reconnect_every=settings.postgres.reconnect_every,
                interval=settings.postgres.interval,
                timeout=settings.postgres.timeout,
            )
        )

    def _build_answers(self) -> None:
        self.answers = Answers(self.board)
        self.answers.alarms = self.alarms
        self.answers.asked["/events"] = events_answer(self.board, self.events)
        described = Raw(description())
        self.answers.documents["/openapi.json"] = lambda _now: described
        self.page = StatusPage(self.board, self.events, self.history, boottime, self.alarms)
        self.answers.places = self.page.places = self.places
        if self.label is not None:
            self.answers.label = self.label.status
        if self.keeper is not None:
            self.answers.history = self.keeper.history

    def _role_label(self) -> RoleLabel | None:
        wanted = self.settings.kubernetes
        if wanted.role_label is None:
            return None
        try:
            api = PodApi(wanted, self.names)
        except NoApi as error:
            raise StartError(str(error)) from error
        return RoleLabel(self.board, api, boottime, wanted.role_label, uid=wanted.uid, timeout=wanted.timeout)

    def alarms(self) -> list[str]:
        """What is wrong without changing a verdict, one sentence each."""
        state_error = self.keeper.error if self.keeper else None
        found = alarms_of(self.board, state_error, boottime(), self.tls_files.error)
        return found + (self.label.alarms(boottime()) if self.label else [])

    async def _take_tls(self, server: ssl.SSLContext | None, client: ssl.SSLContext | None) -> None:
        self.client.tls = client
        if server is not None and self.renew is not None:
            await self.renew(server)

    def exchange(self) -> Exchange | None:
        """The one exchange of this start: a new one would count from zero and look like a replay."""
        key = key_of(self.settings)
        if key is None:
            return None
        if self.signing is None:
            self.signing = Exchange(key, self.board.identity.incarnation)
        self.signing.change_secret(key)
        return self.signing

    def places(self) -> dict[str, Place]:
        """Where each member is, by the name of its entry, this one included."""
        settings, said = self.settings, self.addresses.configured
        found = {settings.name: Place(own_url(settings), address_of(settings))}
        for entry in self.client.entries:
            host = urlsplit(entry.url).netloc.removesuffix(f":{urlsplit(entry.url).port}")
            found[entry.name] = Place(entry.url, said.get(entry.name, f"{host}:5432"))
        return found

    def ask_directly(self) -> None:
        """Tell who is asked past its agent, and where."""
        peers = self.settings.peers
        self.addresses.configured = {entry.name: str(entry.postgres) for entry in peers if entry.postgres}
        self.directs.replace({entry.name: entry.dsn.asyncpg_arguments() for entry in peers if entry.dsn})


def poll_budget(settings: Settings) -> float | None:
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
