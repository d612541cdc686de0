"""Signed messages between agents that share a secret, and when each was composed.

HMAC-SHA256 (RFC 2104) over the body, in a header. Every message carries a counter of its
sender's incarnation and echoes the newest counter that the sender had read from the
receiver. The receiver knows when it sent that counter, so it knows an instant of its own
clock before which the message cannot have been composed: a delayed, reordered or replayed
message is old, whatever it says, and an old statement never replaces a younger one.
"""

import hashlib
import hmac
from collections import OrderedDict

from msgspec.structs import replace

from ..core.model import Instant
from ..wire import EchoSaid, Message, Misunderstood, decode, encode

HEADER = "X-Healthagent-Signature"
REMEMBERED = 4096  # own counters with their instants: many times what any message may still echo
SENDERS = 256  # peers whose counters are kept


class Forged(Misunderstood):
    """A message whose signature is missing or wrong."""


class Replayed(Misunderstood):
    """A message that was read before."""


class Exchange:
    """Sign what is sent, date what is received. One per agent start."""

    def __init__(self, secret: bytes, incarnation: str) -> None:
        self._secret = secret
        self._incarnation = incarnation
        self._counter = 0
        self._sent_at: OrderedDict[int, Instant] = OrderedDict()
        self._read: OrderedDict[str, EchoSaid] = OrderedDict()

    def change_secret(self, secret: bytes) -> None:
        """Sign and read with another secret from now on."""
        self._secret = secret

    def send(
        self, message: Message, to: str, now: Instant, answering: Message | None = None
    ) -> tuple[bytes, str]:
        """The body and the signature of a message to a peer, perhaps in answer to one of its own."""
        self._counter += 1
        self._sent_at[self._counter] = now
        while len(self._sent_at) > REMEMBERED:
            self._sent_at.popitem(last=False)
        if answering is not None:
            echo: EchoSaid | None = EchoSaid(answering.incarnation, answering.counter)
        else:
            echo = self._read.get(to)
        body = encode(replace(message, counter=self._counter, echo=echo))
        return body, self._sign(body)

    def receive(self, body: bytes, signature: str | None) -> tuple[Message, Instant | None]:
        """Read a signed message; also the instant after which it was composed, None if it shows none."""
        if signature is None:
            raise Forged("the message is not signed, but a secret is configured here")
        if not hmac.compare_digest(self._sign(body).encode(), signature.encode("utf-8", "replace")):
            raise Forged("the signature is wrong: another secret, or another sender")
        message = decode(body)
        known = self._read.get(message.name)
        if (
            known is not None
            and known.incarnation == message.incarnation
            and message.counter <= known.counter
        ):
            raise Replayed(f"message {message.counter} of {message.name!r} was read before")
        self._read[message.name] = EchoSaid(message.incarnation, message.counter)
        self._read.move_to_end(message.name)
        while len(self._read) > SENDERS:
            self._read.popitem(last=False)
        return message, self._composed_after(message.echo)

    def _composed_after(self, echo: EchoSaid | None) -> Instant | None:
        if echo is None or echo.incarnation != self._incarnation:
            return None
        return self._sent_at.get(echo.counter)

    def _sign(self, body: bytes) -> str:
        return "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
