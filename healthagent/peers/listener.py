"""The answering half of the exchange: /peer, told to whoever asks, heard from whoever signs."""

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus

from aiohttp.web_request import BaseRequest

from ..board import Board
from ..core.model import Instant
from ..server.answers import Answer, refusal
from ..wire import MAX_BYTES, Message, Misunderstood, encode, statement_of
from .exchange import HEADER, Exchange, Replayed


class PeerListener:
    """What is done with questions of peers; it adds nothing to the board that is not signed and dated."""

    def __init__(self, board: Board, clock: Callable[[], Instant], exchange: Exchange | None) -> None:
        self.board = board
        self.exchange = exchange
        self.rejected: Counter[str] = Counter()
        self._clock = clock

    def tell(self, now: Instant) -> bytes:
        """Our own description, unsigned: GET /peer."""
        return encode(self.board.describe(now))

    async def exchange_with(self, request: BaseRequest) -> tuple[Answer, str | None]:
        """POST /peer: hear the peer's statement, answer with ours; also the signature of the answer."""
        if self.exchange is None:
            answer = refusal(HTTPStatus.FORBIDDEN, "no peer.secret is configured here: ask with GET /peer")
            return answer, None
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > MAX_BYTES:
                self.rejected["too_long"] += 1
                return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BYTES} bytes"), None
        try:
            message, composed_after = self.exchange.receive(bytes(body), request.headers.get(HEADER))
        except Misunderstood as error:
            self.rejected[type(error).__name__.lower()] += 1
            status = HTTPStatus.CONFLICT if isinstance(error, Replayed) else HTTPStatus.UNAUTHORIZED
            return refusal(status, str(error)), None
        now = self._clock()
        entry = self._entry_of(message)
        if composed_after is not None and entry is not None:
            self.board.hear(entry, statement_of(message, composed_after, now), now)
        said, signature = self.exchange.send(self.board.describe(now), message.name, now, answering=message)
        return Answer(HTTPStatus.OK, said), signature

    def _entry_of(self, message: Message) -> str | None:
        """The entry that this sender is configured as; strangers are answered, not believed."""
        if message.cluster != self.board.identity.cluster or message.name == self.board.identity.name:
            return None
        return next((peer.name for peer in self.board.peers.values() if peer.label == message.name), None)
