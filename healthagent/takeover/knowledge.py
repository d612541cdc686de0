"""All that one agent knows and the next must know to be the same to everybody else."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from healthagent import journal as journalling
from healthagent import keeper as keeping
from healthagent.board import Board
from healthagent.core.model import Instant, Local
from healthagent.core.peer import Peer
from healthagent.core.view import Memory
from healthagent.events import MOST, Event, EventFile, Events
from healthagent.fence import Fence
from healthagent.journal import Journal
from healthagent.keeper import Keeper
from healthagent.peers import exchange as exchanging
from healthagent.peers.exchange import Exchange
from healthagent.takeover.channel import TakeoverFailed


class Known(Struct, frozen=True):
    """Instants are CLOCK_BOOTTIME: both agents are of one machine and one boot."""

    memory: Memory
    local: Local
    peers: tuple[Peer, ...]
    fenced: bool = False  # the hook has run in this episode
    events: tuple[Event, ...] = ()
    journal: journalling.Kept | None = None
    keeper: keeping.Kept | None = None
    exchange: exchanging.Kept | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Known)


@dataclass(frozen=True)
class Holders:
    """Those parts of an agent that remember."""

    board: Board
    journal: Journal
    events: Events
    fence: Fence
    keeper: Keeper | None
    event_file: EventFile | None
    exchange: Callable[[], Exchange | None]

    def spelled(self) -> bytes:
        """All that they know at this moment."""
        exchange = self.exchange()
        return _encoder.encode(
            Known(
                memory=self.board.memory,
                local=self.board.local,
                peers=tuple(self.board.peers.values()),
                fenced=self.fence.ran,
                events=tuple(self.events.newest(MOST)),
                journal=self.journal.kept(),
                keeper=self.keeper.kept() if self.keeper else None,
                exchange=exchange.kept() if exchange else None,
            )
        )

    def go_on(self, known: Known, now: Instant) -> None:
        """Know it too."""
        exchange = self.exchange()
        self.board.go_on(known.memory, known.local, {peer.name: peer for peer in known.peers}, now)
        self.fence.ran = known.fenced
        self.events.go_on(known.events)
        if known.journal is not None:
            self.journal.go_on(known.journal)
        if self.keeper is not None and known.keeper is not None:
            self.keeper.go_on(known.keeper)
        if exchange is not None and known.exchange is not None:
            exchange.go_on(known.exchange)


def read(body: bytes) -> Known:
    """Raises TakeoverFailed when the other version knows what this one cannot understand."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TakeoverFailed(f"what the running agent knows cannot be read here: {error}") from None
