"""The agent that starts beside the one that runs, and takes its place."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from healthagent import __version__
from healthagent.listening import Inherited
from healthagent.offloop import call
from healthagent.takeover import knowledge
from healthagent.takeover.channel import DEATH_WITHIN, Channel, Gone, Refused, TakeoverFailed
from healthagent.takeover.giver import ANSWER_WITHIN, QUIET_WITHIN, STILL
from healthagent.takeover.knowledge import Known
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
    Ready,
    Rehearsal,
    Serving,
    Take,
    Welcome,
)
from healthagent.takeover.place import connect

SEES_WITHIN = 15.0  # seconds until PostgreSQL and each peer were asked, and until the running agent agrees
LOOK_EVERY = 0.1  # seconds
LEAVE = 1.2  # seconds in which clients connect anew; peers do, which ask each peer.interval
LEAVE_AT_MOST = 4.5  # longer than a peer keeps a connection that it does not use
GO_WITHIN = 5.0  # seconds
AGAINST_ODDS = "it may be frozen, or is being replaced already: stop or kill it, and start this one"

M = TypeVar("M", bound=Message)
log = logging.getLogger(__name__)


class Predecessor:
    """The running agent, which has agreed to be replaced, and what it has passed on so far."""

    def __init__(self, channel: Channel, welcome: Welcome, sockets: Inherited) -> None:
        self.pid = channel.pid
        self.welcome = welcome
        self.sockets = sockets  # that listen, by address
        self._channel = channel

    async def until_seen(self, see: Callable[[], Ready], stopped: Callable[[], bool]) -> None:
        """Wait until we have asked everything once, and see what the running agent sees."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SEES_WITHIN
        while True:
            if stopped():
                raise Refused("this one was stopped")
            await self._send(see())
            answer = await self._any(ANSWER_WITHIN)
            if isinstance(answer, Rehearsal):
                knowledge.read(answer.knowledge)
                return
            if not isinstance(answer, NotYet):
                raise TakeoverFailed(f"want an answer to Ready, got {type(answer).__name__}")
            if loop.time() > deadline:
                raise Refused(answer.why)
            await asyncio.sleep(LOOK_EVERY)

    async def take(self, stopped: Callable[[], bool], peer_interval: float) -> None:
        """Give clients time to leave, then wait until it stands still; `receive` and `commit` must follow."""
        await asyncio.sleep(min(max(LEAVE, 2 * peer_interval + 0.2), LEAVE_AT_MOST))
        if stopped():
            raise Refused("this one was stopped")
        self._channel.send(Take(), STILL)
        await self._channel.readable(ANSWER_WITHIN + QUIET_WITHIN)

    def receive(self) -> tuple[Known, list[tuple[Client, socket.socket]]]:
        """All that it knows, and its clients. Blocks: nobody is answered, so the shortest way is best."""
        clients: list[tuple[Client, socket.socket]] = []
        while True:
            message = self._channel.receive_any(STILL)
            if isinstance(message, Clients):
                clients += zip(message.clients, self._channel.take(len(message.clients)), strict=True)
            elif isinstance(message, Knowledge):
                return knowledge.read(message.knowledge), clients
            else:
                raise TakeoverFailed(f"want Knowledge, got {type(message).__name__}")

    def commit(self) -> None:
        """Say that everything is in place. When this returns it answers never again. Blocks, too."""
        self._channel.send(Have(), STILL)
        self._channel.receive(Go, GO_WITHIN)

    async def farewell(self) -> None:
        """Tell it that we serve; when this returns the service manager knows us, or it is dead."""

        def talk() -> None:
            self._channel.send(Serving(), ANSWER_WITHIN)
            self._channel.receive(Bye, ANSWER_WITHIN)

        try:
            await call(talk, "takeover")
        except TakeoverFailed as error:
            log.warning("the agent that was replaced said no farewell: %s", error)
        self.close()
        for sockets in self.sockets.values():  # those in use were copied
            for one in sockets:
                one.close()

    def refuse(self, why: str) -> None:
        """End it before the commit."""
        self._channel.refuse(why)
        self.close()

    def close(self) -> None:
        """Let go of the conversation; the listening sockets stay ours."""
        self._channel.close()

    async def _send(self, message: Message) -> None:
        await call(lambda: self._channel.send(message, ANSWER_WITHIN), "takeover")

    async def _any(self, within: float) -> Message:
        return await call(lambda: self._channel.receive_any(within), "takeover")


def reach(directory: Path, name: str, cluster: str) -> Predecessor | None:
    """The agent that runs with this state_dir; None when there is none. Blocks for some seconds at most.

    One that ends at this moment may have been replaced: then its successor is the one that runs.
    """
    for pause in (0.1, 0.5, 0.0):
        connection = connect(directory)
        if connection is None:
            return None
        try:
            return _welcomed(connection, name, cluster)
        except Gone:
            time.sleep(pause)
    return None


def _welcomed(connection: socket.socket, name: str, cluster: str) -> Predecessor:
    channel = Channel(connection, DEATH_WITHIN)
    try:
        if channel.uid != os.geteuid():
            raise Refused(f"the running agent belongs to user {channel.uid}, you are {os.geteuid()}")
        channel.send(Hello(VERSION, __version__, name, cluster), ANSWER_WITHIN)
        try:
            welcome = channel.receive(Welcome, ANSWER_WITHIN)
        except (Refused, Gone):
            raise
        except TakeoverFailed as error:
            raise TakeoverFailed(f"process {channel.pid} runs here: {error}; {AGAINST_ODDS}") from None
        sockets = {offer.address: channel.take(offer.count) for offer in welcome.offers}
    except TakeoverFailed:
        channel.close()
        raise
    return Predecessor(channel, welcome, sockets)
