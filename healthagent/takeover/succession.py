"""What the agent that starts does with its parts until it stands in the place of the running one.

It asks PostgreSQL and the peers itself. To the peers it is a stranger meanwhile: one that is answered, and
whose own words are not believed, for there must not be two agents of one name.
"""

import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from healthagent import __version__
from healthagent.agentcheck import AgentCheck
from healthagent.core.members import heard, last_round
from healthagent.core.model import Instant
from healthagent.peers.client import PeerClient
from healthagent.peers.exchange import Exchange
from healthagent.server.http import Surface
from healthagent.takeover.knowledge import Holders
from healthagent.takeover.messages import Client, Ready
from healthagent.takeover.taker import Predecessor
from healthagent.wire import Message

log = logging.getLogger(__name__)


class Succession:
    """The way of one agent into the place of another: `prepare`, run what gathers evidence, `complete`."""

    def __init__(
        self,
        predecessor: Predecessor,
        holders: Holders,
        client: PeerClient,
        surface: Surface,
        agent_check: AgentCheck,
        clock: Callable[[], Instant],
    ) -> None:
        self._predecessor = predecessor
        self._holders = holders
        self._client = client
        self._surface = surface
        self._agent_check = agent_check
        self._clock = clock

    def prepare(self) -> None:
        """Be the running agent's equal to ourselves, and a stranger to the peers."""
        board = self._holders.board
        own = board.identity
        # so that an entry which leads to the running agent is known to lead to ourselves
        board.identity = replace(own, incarnation=self._predecessor.welcome.incarnation)
        name = f"{own.name} (successor)"[:255]

        def introduce(now: Instant) -> Message:
            return Message(own.cluster, name, own.incarnation, uptime=0.0, serving=False, version=__version__)

        self._client.describe = introduce

    async def complete(self, exchange: Exchange | None, stopped: Callable[[], bool]) -> None:
        """Take over: when this returns we answer and the other one does not; TakeoverFailed: never.

        `exchange` signs from then on, as the running agent of the same incarnation does until then.
        """
        predecessor, board = self._predecessor, self._holders.board
        await predecessor.until_seen(self._sees, stopped)
        await predecessor.take(stopped, board.policy.peer_interval)
        known, clients = predecessor.receive()
        with ExitStack() as unanswered:
            for _, connection in clients:
                unanswered.callback(connection.close)
            self._holders.go_on(known, self._clock())
            predecessor.commit()
            unanswered.pop_all()
        self._client.describe, self._client.exchange = board.describe, exchange
        await self._surface.listening.open()
        await self._agent_check.listening.open()
        for asked, connection in clients:
            await self._adopt(asked, connection)

    async def _adopt(self, client: Client, connection: socket.socket) -> None:
        server: Surface | AgentCheck = self._agent_check if client.agent_check else self._surface
        try:
            await server.adopt(connection, client.read)
        except OSError:  # it has gone meanwhile
            connection.close()

    def _sees(self) -> Ready:
        """What was seen so far, and why not more."""
        board, now = self._holders.board, self._clock()
        running, local = board.running(now), board.local
        probed = board.policy.witness or local.snapshot is not None or local.failure is not None
        found = bool(board.peers) or board.policy.expected_members is None  # DNS has named somebody
        members = any(peer.counts for peer in board.peers.values())
        round_over = not members or last_round(board.view(now)) is not None
        return Ready(
            asked=probed and found and round_over,
            postgres=None if running.ok else running.detail,
            peers={
                name: None
                if heard(peer, now, board.policy) is not None
                else peer.alarm_detail or self._client.troubles.cause(name) or "no answer"
                for name, peer in board.peers.items()
            },
        )
