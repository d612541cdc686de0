"""Signed messages between agents that share a secret, and when each was composed.

HMAC-SHA256 (RFC 2104) over the body, in a header. Every message carries a counter of its
sender's incarnation and echoes the newest counter that the sender had read from the
receiver. The receiver knows when it sent that counter, so it knows an instant of its own
clock before which the message cannot have been composed: a delayed, reordered or replayed
message is old, whatever it says, and an old statement never replaces a younger one.

Two agents ask each other at once, over two connections, so a message that is overtaken by
a younger one is an everyday matter: it is answered, not believed and nobody's fault. Only
one that was read before is a replay.
"""

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from healthagent.config import Settings
from healthagent.core.model import Instant
from healthagent.wire import EchoSaid, Message, Misunderstood, decode, encode

HEADER = "X-Healthagent-Signature"
REMEMBERED = 4096  # own counters with their instants: many times what any message may still echo
WINDOW = 4096  # counters back from a sender's newest within which a replay is told from an overtaken message
SENDERS = 256  # peers whose counters are kept
CERTIFIED = b"certificates"  # signs where they authenticate and no secret does: one format for both
NEVER: Instant = float("-inf")
NOTHING = -1  # counters begin at 0


class Forged(Misunderstood):
    """A message whose signature is missing or wrong."""


class Replayed(Misunderstood):
    """A message that was read before, or too long ago to know."""


class Overtaken(Replayed):
    """A message that comes after a younger one of its sender: to be answered, not to be believed."""

    def __init__(self, message: Message) -> None:
        super().__init__("a younger message of the same sender was read before")
        self.message = message


@dataclass(slots=True)
class _Sender:
    """What was read from one agent since its start."""

    incarnation: str
    newest: int
    seen: int  # bit n: the message n before the newest was read
    composed_after: Instant
    believed: int  # the newest that could be dated: only that one overtakes


class KeptSender(Struct, frozen=True):
    """What was read from one agent, for a successor."""

    name: str
    incarnation: str
    newest: int
    seen: bytes  # as many bits are no integer to others
    composed_after: Instant
    believed: int


class Kept(Struct, frozen=True):
    """All that a successor of the same incarnation must know: it counts on, and a replay stays one."""

    counter: int
    sent_at: tuple[tuple[int, Instant], ...]
    read: tuple[KeptSender, ...]


class Exchange:
    """Sign what is sent, date what is received. One per agent start."""

    def __init__(self, secret: bytes, incarnation: str) -> None:
        self._secret = secret
        self._incarnation = incarnation
        self._counter = 0
        self._sent_at: OrderedDict[int, Instant] = OrderedDict()
        self._read: OrderedDict[str, _Sender] = OrderedDict()

    def change_secret(self, secret: bytes) -> None:
        """Sign and read with another secret from now on."""
        self._secret = secret

    def kept(self) -> Kept:
        """What a successor goes on with. Send nothing more afterwards: it would count the same."""
        return Kept(
            self._counter,
            tuple(self._sent_at.items()),
            tuple(
                KeptSender(
                    name,
                    one.incarnation,
                    one.newest,
                    one.seen.to_bytes(WINDOW // 8, "big"),
                    one.composed_after,
                    one.believed,
                )
                for name, one in self._read.items()
            ),
        )

    def go_on(self, kept: Kept) -> None:
        """Take the place of the exchange that kept this."""
        self._counter = kept.counter
        self._sent_at = OrderedDict(kept.sent_at)
        self._read = OrderedDict(
            (
                one.name,
                _Sender(
                    one.incarnation,
                    one.newest,
                    int.from_bytes(one.seen, "big"),
                    one.composed_after,
                    one.believed,
                ),
            )
            for one in kept.read
        )

    def send(
        self, message: Message, to: str, now: Instant, answering: Message | None = None
    ) -> tuple[bytes, str]:
        """The body and the signature of a message to the agent of that name, perhaps in answer to its own."""
        self._counter += 1
        self._sent_at[self._counter] = now
        while len(self._sent_at) > REMEMBERED:
            self._sent_at.popitem(last=False)
        body = encode(replace(message, counter=self._counter, echo=self._echo(to, answering)))
        return body, self._sign(body)

    def receive(self, body: bytes, signature: str | None) -> tuple[Message, Instant | None]:
        """Read a signed message; also the instant after which it was composed, None if it shows none.

        Raises Forged, Replayed, Overtaken, or Misunderstood for what is signed and no message.
        """
        if signature is None:
            signing = "tls.client_ca" if self._secret == CERTIFIED else "peer.secret"
            raise Forged(f"the message is not signed, but {signing} is configured here")
        if not hmac.compare_digest(self._sign(body).encode(), signature.encode("utf-8", "replace")):
            raise Forged("the signature is wrong: another secret, or another sender")
        message = decode(body)
        composed_after = self._composed_after(message.echo)
        self._note(message, NEVER if composed_after is None else composed_after)
        return message, composed_after

    def _note(self, message: Message, composed_after: Instant) -> None:
        known = self._read.get(message.name)
        if known is not None and known.incarnation != message.incarnation:
            if composed_after == NEVER:
                return  # a new start, or a recording of an old one: its next message will tell
            if composed_after < known.composed_after:
                raise Replayed("a message of an earlier start of its sender")
            known = None
        if known is None:
            believed = NOTHING if composed_after == NEVER else message.counter
            self._read[message.name] = _Sender(
                message.incarnation, message.counter, 1, composed_after, believed
            )
            self._read.move_to_end(message.name)
            while len(self._read) > SENDERS:
                self._read.popitem(last=False)
            return
        behind = known.newest - message.counter
        if behind >= WINDOW or (behind >= 0 and known.seen >> behind & 1):
            raise Replayed("a message of this sender that was read before")
        if behind > 0:
            known.seen |= 1 << behind
            if message.counter < known.believed:
                raise Overtaken(message)
        else:
            known.seen = (known.seen << -behind) & ((1 << WINDOW) - 1) | 1 if -behind < WINDOW else 1
            known.newest = message.counter
        known.composed_after = max(known.composed_after, composed_after)
        if composed_after != NEVER:
            known.believed = message.counter

    def _echo(self, to: str, answering: Message | None) -> EchoSaid | None:
        known = self._read.get(to)
        if answering is not None and (known is None or known.incarnation != answering.incarnation):
            return EchoSaid(answering.incarnation, answering.counter)
        return None if known is None else EchoSaid(known.incarnation, known.newest)

    def _composed_after(self, echo: EchoSaid | None) -> Instant | None:
        if echo is None or echo.incarnation != self._incarnation:
            return None
        return self._sent_at.get(echo.counter)

    def _sign(self, body: bytes) -> str:
        return "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()


def exchange_of(settings: Settings, incarnation: str) -> Exchange | None:
    """The exchange of an agent, None where agents only pull."""
    key = key_of(settings)
    return None if key is None else Exchange(key, incarnation)


def key_of(settings: Settings) -> bytes | None:
    """What messages are signed with; None without a secret, unless certificates authenticate both sides."""
    if settings.peer.secret is not None:
        return settings.peer.secret.reveal().encode()
    return None if settings.tls.client_ca is None else CERTIFIED
