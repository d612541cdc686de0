"""The agent that runs, and is to be replaced: it answers until the commit, and afterwards never again."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from healthagent import __version__
from healthagent.agentcheck import AgentCheck
from healthagent.core.members import heard
from healthagent.core.model import Instant
from healthagent.notify import Notifier
from healthagent.offloop import call
from healthagent.server.http import Surface
from healthagent.takeover.channel import (
    DEATH_WITHIN,
    MOST_DESCRIPTORS,
    Channel,
    Gone,
    Refused,
    TakeoverFailed,
)
from healthagent.takeover.knowledge import Holders
from healthagent.takeover.messages import (
    VERSION,
    Bye,
    Client,
    Clients,
    Go,
    Have,
    Hello,
    Knowledge,
    Message,
    NotYet,
    Offer,
    Ready,
    Rehearsal,
    Serving,
    Take,
    Welcome,
)

ANSWER_WITHIN = 10.0  # seconds from one word of the successor to the next
SEES_WITHIN = 20.0  # seconds until it must see what we see
QUIET_WITHIN = 1.0  # seconds in which a moment without half-finished answers is looked for
STILL = 0.5  # seconds for which this agent may stand still, for each word of the hand-over
SERVES_WITHIN = 5.0  # seconds from the commit to the successor's word that it answers
MOST_CLIENTS = 2000  # moved; they have not been answered yet, or hold a connection for the next question

DETACH = "--detach"  # the flag that has done its work: this process is the one that stays

M = TypeVar("M", bound=Message)
log = logging.getLogger(__name__)


def end(code: int) -> NoReturn:
    """End this process at once: nothing of it may run any more, above all not the event loop."""
    logging.shutdown()
    os._exit(code)


def start_anew() -> NoReturn:
    """Become a new start of this program under the same process id, whoever watches over it."""
    logging.shutdown()
    arguments = [one for one in sys.orig_argv[1:] if one != DETACH]
    os.execv(sys.executable, [sys.executable, *arguments])


@dataclass(frozen=True)
class Replaceable:
    """What of an agent is handed on, or must stand still for that."""

    holders: Holders
    surface: Surface
    agent_check: AgentCheck
    notifier: Notifier
    clock: Callable[[], Instant]
    end: Callable[[int], NoReturn] = end
    start_anew: Callable[[], NoReturn] = start_anew


class Giver:
    """Waits for successors: `await giver.run()`, which ends with the process when one has taken over."""

    def __init__(self, listener: socket.socket, parts: Replaceable) -> None:
        self._listener = listener
        self._parts = parts

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                connection, _ = await loop.sock_accept(self._listener)
                await self._serve(Channel(connection))
        finally:
            self._listener.close()

    async def _serve(self, channel: Channel) -> None:
        """One attempt; when it fails this agent goes on as if there had been none."""
        try:
            await self._give(channel)
        except TakeoverFailed as error:
            log.warning("not replaced by process %d, this agent goes on: %s", channel.pid, error)
            if not isinstance(error, Gone):
                channel.refuse(str(error))
        except asyncio.CancelledError:
            channel.refuse("the running agent is stopping")
            raise
        finally:
            self._leave(False)
            channel.close()

    async def _give(self, channel: Channel) -> None:
        if channel.uid != os.geteuid():
            raise Refused(f"the running agent belongs to user {os.geteuid()}, you are {channel.uid}")
        self._judge(await self._receive(channel, Hello))
        log.info("process %d gets ready to replace this one", channel.pid)
        await self._welcome(channel)
        await self._until_it_sees(channel)
        self._leave(True)
        await self._send(channel, Rehearsal(self._parts.holders.spelled()))
        await self._receive(channel, Take)
        await self._quiet()
        self._hand_over(channel)  # nothing else runs in this process from here to its end or its failure

    def _judge(self, hello: Hello) -> None:
        own = self._parts.holders.board.identity
        if hello.v != VERSION:
            raise Refused(
                f"the running agent {__version__} hands over in format {VERSION}, version {hello.version} "
                f"takes {hello.v}: stop the one and start the other"
            )
        if (hello.name, hello.cluster) != (own.name, own.cluster):
            raise Refused(
                f"{own.name} of cluster {own.cluster} runs here, and not {hello.name} of cluster "
                f"{hello.cluster}: stop the one and start the other"
            )

    async def _welcome(self, channel: Channel) -> None:
        parts = self._parts
        offers = {**parts.surface.listening.offers(), **parts.agent_check.listening.offers()}
        descriptors = [one for address in offers.values() for one in address]
        if len(descriptors) > MOST_DESCRIPTORS:
            raise Refused(f"{len(descriptors)} listening sockets, at most {MOST_DESCRIPTORS} can be passed")
        message = Welcome(
            v=VERSION,
            version=__version__,
            incarnation=parts.holders.board.identity.incarnation,
            offers=tuple(Offer(address, len(its)) for address, its in offers.items()),
            notify=parts.notifier.address,
            watchdog=parts.notifier.watchdog,
        )
        await call(lambda: channel.send(message, ANSWER_WITHIN, descriptors), "takeover")

    async def _until_it_sees(self, channel: Channel) -> None:
        """Wait until the successor sees what this agent sees; whatever else is wrong is wrong for both."""
        deadline = self._parts.clock() + SEES_WITHIN
        while (why := self._unseen(await self._receive(channel, Ready))) is not None:
            if self._parts.clock() > deadline:
                raise Refused(why)
            await self._send(channel, NotYet(why))

    def _unseen(self, ready: Ready) -> str | None:
        board, now = self._parts.holders.board, self._parts.clock()
        if not ready.asked:
            return "not everything was asked in time"
        if ready.postgres is not None and board.running(now).ok:
            return f"PostgreSQL answers the running agent, and not this one: {ready.postgres}"
        for name, why in ready.peers.items():
            peer = board.peers.get(name)
            if why is not None and peer is not None and heard(peer, now, board.policy) is not None:
                return f"{name} answers the running agent, and not this one: {why}"
        return None

    def _leave(self, leaving: bool) -> None:
        """Ask clients that cannot be moved to connect anew."""
        self._parts.surface.crowd.leaving = self._parts.agent_check.crowd.leaving = leaving

    async def _quiet(self) -> None:
        """Wait for a moment at which nobody is being answered and nothing is being written."""
        parts, holders = self._parts, self._parts.holders
        keeper, fence, event_file = holders.keeper, holders.fence, holders.event_file
        deadline = parts.clock() + QUIET_WITHIN
        while True:
            if holders.board.stopping:
                raise Refused("the running agent is stopping")
            answering = parts.surface.crowd.busy or parts.agent_check.crowd.busy
            # a write that ends after the successor's first one would take it back
            saving = keeper is not None and keeper.saving
            if not (answering or saving or fence.running or (event_file is not None and event_file.saving)):
                return
            if parts.clock() > deadline:
                if saving:
                    raise Refused("the state file is being written, and the disk takes its time")
                if fence.running:
                    raise Refused("the fence command is running")
                return  # over TLS a client that dawdles cannot be moved: it is cut
            await asyncio.sleep(0.001)

    def _hand_over(self, channel: Channel) -> None:
        """Stand still, give everything away, and end. Before `Go` any failure leaves all as it was."""
        self._give_clients(channel)
        channel.send(Knowledge(self._parts.holders.spelled()), STILL)
        channel.receive(Have, STILL)
        self._end(channel)

    def _give_clients(self, channel: Channel) -> None:
        parts, found = self._parts, []
        for is_check, crowd in ((False, parts.surface.crowd), (True, parts.agent_check.crowd)):
            for client in crowd:
                state = client.unanswered()
                if state is not None:
                    found.append((Client(is_check, state[1]), state[0]))
        for start in range(0, min(len(found), MOST_CLIENTS), MOST_DESCRIPTORS):
            portion = found[start : start + MOST_DESCRIPTORS]
            message = Clients(tuple(client for client, _ in portion))
            channel.send(message, STILL, [descriptor for _, descriptor in portion])

    def _end(self, channel: Channel) -> NoReturn:
        """The commit, and what follows from it: this process answers nobody any more."""
        parts = self._parts
        channel.send(Go(), STILL)  # what could not be sent was not said
        channel.death_within = DEATH_WITHIN
        try:
            channel.receive(Serving, SERVES_WITHIN)
        except Gone as error:
            log.error(  # noqa: TRY400  # where it happened says nothing, what happened is in the line
                "the successor died at the moment of taking over: %s; starting anew", error
            )
            parts.start_anew()
        except TakeoverFailed as error:
            # it may serve, so this process must not: whoever watches over it starts another
            log.error(  # noqa: TRY400  # as above
                "process %d was to take over and does not say that it serves: %s", channel.pid, error
            )
            parts.end(1)
        parts.notifier.main_pid(channel.pid)
        channel.say(Bye())
        log.info("process %d answers now, this one ends", channel.pid)
        parts.end(0)

    async def _send(self, channel: Channel, message: Message) -> None:
        await call(lambda: channel.send(message, ANSWER_WITHIN), "takeover")

    async def _receive(self, channel: Channel, kind: type[M]) -> M:
        return await call(lambda: channel.receive(kind, ANSWER_WITHIN), "takeover")
