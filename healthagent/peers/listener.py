"""The answering half of the exchange: /peer, told to whoever asks, heard from whoever signs.

With `tls.client_ca` both are only for callers that show a certificate which it has signed.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from http import HTTPStatus

from aiohttp.web_request import BaseRequest

from healthagent.board import Board
from healthagent.core.model import Instant
from healthagent.peers.exchange import HEADER, Exchange, Forged, Overtaken, Replayed
from healthagent.server.answers import Answer, refusal
from healthagent.wire import MAX_BYTES, Message, Misunderstood, encode, statement_of

MOST_AT_ONCE = 128  # bodies that are being read: 32 MB at worst
BODY_WITHIN = 2.0  # seconds for a body of some kilobytes
CALM = 60.0  # seconds without another: then the same fault of the same caller is worth a line again
MOST_CALLERS = 256  # whose faults are remembered

log = logging.getLogger(__name__)


class PeerListener:
    """What is done with questions of peers; it adds nothing to the board that is not signed and dated."""

    def __init__(
        self,
        board: Board,
        clock: Callable[[], Instant],
        exchange: Exchange | None,
        *,
        certified_only: bool = False,
    ) -> None:
        self.board = board
        self.exchange = exchange
        self.rejected: Counter[str] = Counter()  # questions by kind of fault
        self._clock = clock
        self._certified_only = certified_only
        self._reading = 0
        self._faults: OrderedDict[tuple[str, str | None], Instant] = OrderedDict()  # the last of each

    async def tell(self, request: BaseRequest) -> Answer:
        """GET /peer: our own description, unsigned."""
        stranger = self._stranger(request)
        return stranger or Answer(HTTPStatus.OK, encode(self.board.describe(self._clock())))

    async def exchange_with(self, request: BaseRequest) -> tuple[Answer, str | None]:
        """POST /peer: hear the peer's statement, answer with ours; also the signature of the answer."""
        stranger = self._stranger(request)
        if stranger is not None:
            return stranger, None
        if self.exchange is None:
            why = "no peer.secret is configured here: ask with GET /peer"
            return self._refuse("no_secret", HTTPStatus.FORBIDDEN, why, request), None
        body = await self._body(request)
        if isinstance(body, Answer):
            return body, None
        signature = request.headers.get(HEADER)
        try:
            message, composed_after = self.exchange.receive(body, signature)
        except Overtaken as late:
            message, composed_after = late.message, None
        except Replayed as error:
            return self._refuse("replayed", HTTPStatus.CONFLICT, str(error), request), None
        except Forged as error:
            return self._refuse("forged", HTTPStatus.UNAUTHORIZED, str(error), request), None
        except Misunderstood as error:
            return self._refuse("misunderstood", HTTPStatus.BAD_REQUEST, str(error), request), None
        now = self._clock()
        entry = self._entry_of(message)
        if composed_after is not None and entry is not None:
            self.board.hear(entry, statement_of(message, composed_after, now), now)
        said, signed = self.exchange.send(self.board.describe(now), message.name, now, answering=message)
        return Answer(HTTPStatus.OK, said), signed

    async def _body(self, request: BaseRequest) -> bytes | Answer:
        """The body, or why there is none: too long, too slow, too many at once."""
        if self._reading >= MOST_AT_ONCE:
            why = f"{MOST_AT_ONCE} questions are being read already"
            return self._refuse("too_many", HTTPStatus.SERVICE_UNAVAILABLE, why, request)
        self._reading += 1
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_WITHIN):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        why = f"body: at most {MAX_BYTES} bytes"
                        return self._refuse("too_long", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why, request)
        except TimeoutError:
            why = f"body: did not arrive within {BODY_WITHIN:g} s"
            return self._refuse("too_slow", HTTPStatus.REQUEST_TIMEOUT, why, request)
        finally:
            self._reading -= 1
        return bytes(body)

    def _stranger(self, request: BaseRequest) -> Answer | None:
        """Refuse a caller without a certificate where one is wanted: TLS has verified what it shows."""
        if not self._certified_only:
            return None
        if request.transport is not None and request.transport.get_extra_info("peercert"):
            return None
        why = "/peer is only for callers with a certificate of tls.client_ca"
        return self._refuse("no_certificate", HTTPStatus.FORBIDDEN, why, request)

    def _refuse(self, kind: str, status: HTTPStatus, why: str, request: BaseRequest) -> Answer:
        self.rejected[kind] += 1
        now, fault = self._clock(), (kind, request.remote)
        if now - self._faults.get(fault, float("-inf")) >= CALM:
            log.warning("a peer's question from %s was refused: %s", request.remote, why)
        self._faults[fault] = now
        self._faults.move_to_end(fault)
        while len(self._faults) > MOST_CALLERS:
            self._faults.popitem(last=False)
        return refusal(status, why)

    def _entry_of(self, message: Message) -> str | None:
        """The entry that this sender is configured as; strangers are answered, not believed."""
        if message.cluster != self.board.identity.cluster or message.name == self.board.identity.name:
            return None
        for peer in self.board.peers.values():
            # a discovered peer that comes back elsewhere has another entry, which we must have asked first
            known = peer.statement.incarnation if peer.discovered and peer.statement else message.incarnation
            if peer.label == message.name and known == message.incarnation:
                return peer.name
        return None
