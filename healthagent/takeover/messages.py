"""What the two say to each other: MessagePack, since it keeps infinities and 64 bits.

The other side may be of another version. Unknown fields are ignored and new ones have defaults; `v` grows
when that is no longer enough, and then the two do not begin.
"""

import msgspec
from msgspec import Struct

VERSION = 1


class Message(Struct, frozen=True, tag=True):
    """Any of them."""


class Hello(Message, frozen=True, tag=True):
    v: int
    version: str
    name: str
    cluster: str


class Offer(Struct, frozen=True):
    address: str  # HOST:PORT as configured, or a path
    count: int  # of descriptors that came with the message


class Welcome(Message, frozen=True, tag=True):
    v: int
    version: str
    incarnation: str
    offers: tuple[Offer, ...]
    notify: str | None = None  # where the service manager listens: the successor's environment may not say
    watchdog: float | None = None  # seconds


class Ready(Message, frozen=True, tag=True):
    """What the successor sees: None, or why not. `asked`: PostgreSQL and each peer, once."""

    asked: bool
    postgres: str | None
    peers: dict[str, str | None]


class NotYet(Message, frozen=True, tag=True):
    why: str


class Rehearsal(Message, frozen=True, tag=True):
    knowledge: bytes


class Take(Message, frozen=True, tag=True):
    """The copy was understood."""


class Client(Struct, frozen=True):
    """A client with a question that is not complete yet, or with none."""

    agent_check: bool
    read: bytes


class Clients(Message, frozen=True, tag=True):
    """With a descriptor for each."""

    clients: tuple[Client, ...]


class Knowledge(Message, frozen=True, tag=True):
    knowledge: bytes


class Have(Message, frozen=True, tag=True):
    """All of it is understood and in place."""


class Go(Message, frozen=True, tag=True):
    """The commit: whoever says it never answers again."""


class Serving(Message, frozen=True, tag=True):
    pass


class Bye(Message, frozen=True, tag=True):
    pass


class No(Message, frozen=True, tag=True):
    why: str


_decoder = msgspec.msgpack.Decoder(
    Hello | Welcome | Ready | NotYet | Rehearsal | Take | Clients | Knowledge | Have | Go | Serving | Bye | No
)
_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(body: bytes) -> Message:
    """Raises msgspec.DecodeError."""
    message: Message = _decoder.decode(body)
    return message
