"""What agents say to one another, as JSON, and the one place that trusts nobody.

A message holds ages, never instants: its receiver turns them into instants of its own
clock. Fields that this version does not know are ignored and absent ones have defaults,
so agents of different versions understand each other during a rolling upgrade; `v` only
grows when that is no longer true, and even then what can be read is used.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from healthagent.core.model import Follower, Instant, Receiver, Role, Snapshot
from healthagent.core.peer import Candidate, Served, Sight, Source, Statement

VERSION = 1
MAX_BYTES = 256 * 1024  # of one message: 64 followers and 64 members need about 30 kB

Age = Annotated[float, Meta(ge=0, le=4e9)]  # seconds; no machine has run for a century
Timeline = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
MOST = 0x7FFFFFFFFFFFFFFF  # of a counter or an LSN: 2^63 bytes of WAL are a thousand years at 300 MB/s
Lsn = Annotated[int, Meta(ge=0, le=MOST)]
Word = Annotated[str, Meta(max_length=255)]
TagSaid = bool | int | float | Word
MAX_SENTENCE = 2000  # characters
MAX_FOLLOWERS = 256  # of those beyond it nothing is told, as an unreadable message would tell nothing at all
Sentence = Annotated[str, Meta(max_length=MAX_SENTENCE)]
# a string, since a JSON number of 64 bits is rounded by most readers
SystemIdentifier = Annotated[str, Meta(pattern="^[0-9]{1,20}$")]


class Misunderstood(ValueError):
    """A message that cannot be read: the text says where and why, and quotes nothing."""


class SnapshotSaid(Struct, omit_defaults=True, frozen=True):
    age: Age
    role: Word
    system_identifier: SystemIdentifier | None = None
    timeline: Timeline | None = None
    server_version: int = 0
    postmaster_started_at: Word | None = None
    read_only: bool = False
    insert_lsn: Lsn | None = None
    flush_lsn: Lsn | None = None
    received_lsn: Lsn | None = None
    replayed_lsn: Lsn | None = None
    replayed_timestamp: Word | None = None
    replay_age_seconds: float | None = None
    replay_paused: bool = False
    restores_from_archive: bool = False
    receiver: Receiver | None = None
    followers: Annotated[tuple[Follower, ...], Meta(max_length=MAX_FOLLOWERS)] = ()


class ServedSaid(Struct, omit_defaults=True, frozen=True):
    timeline: Timeline
    ago: Age
    system_identifier: SystemIdentifier | None = None


class CandidateSaid(Struct, frozen=True):
    name: Word
    timeline: Timeline


class HighWaterSaid(Struct, frozen=True):
    system_identifier: SystemIdentifier
    timeline: Timeline


class SightSaid(Struct, omit_defaults=True, frozen=True):
    name: Word
    heard: bool = False
    role: Word | None = None
    timeline: Timeline | None = None
    serving: bool = False


class EchoSaid(Struct, frozen=True):
    """The newest message of the receiver that the sender had read: it dates this one."""

    incarnation: Word
    counter: Annotated[int, Meta(ge=0, le=MOST)]


class Message(Struct, frozen=True):
    """One agent's description of itself, at the moment of sending."""

    cluster: Word
    name: Word
    incarnation: Word
    uptime: Age
    serving: bool
    v: int = VERSION
    version: Word | None = None
    counter: Annotated[int, Meta(ge=0, le=MOST)] = 0
    echo: EchoSaid | None = None
    witness: bool = False
    members_hash: Word | None = None
    address: Word | None = None
    snapshot: SnapshotSaid | None = None
    not_serving_for: Age | None = None  # absent: it has not served since it started
    last_served: ServedSaid | None = None
    yields_to: CandidateSaid | None = None
    hwm: Annotated[list[HighWaterSaid], Meta(max_length=64)] = []
    reason: Word = ""
    detail: Sentence = ""
    replica_ok: bool | None = None
    replica_reason: Word = ""
    tags: Annotated[dict[Word, TagSaid], Meta(max_length=64)] = {}
    sees: Annotated[list[SightSaid], Meta(max_length=256)] = []


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(body: bytes) -> Message:
    """Read a peer's message, or say why it cannot be one."""
    if len(body) > MAX_BYTES:
        raise Misunderstood(f"{len(body)} bytes, at most {MAX_BYTES} are read")
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Misunderstood(f"no message of an agent: {error}") from None


def statement_of(message: Message, asked_at: Instant, received_at: Instant) -> Statement:
    """Turn a peer's ages into instants of our clock, each to the side that refuses."""
    snapshot = message.snapshot
    return Statement(
        asked_at=asked_at,
        received_at=received_at,
        source=Source.AGENT,
        cluster=message.cluster,
        name=message.name,
        incarnation=message.incarnation,
        started_at=received_at - message.uptime,
        snapshot=None if snapshot is None else _snapshot(snapshot, asked_at),
        reason=message.reason,
        detail=message.detail,
        serving=message.serving,
        stopped_serving_at=None if message.not_serving_for is None else received_at - message.not_serving_for,
        served=_served(message.last_served, received_at),
        yields_to=_candidate(message.yields_to),
        high_water=tuple((int(mark.system_identifier), mark.timeline) for mark in message.hwm),
        members_hash=message.members_hash,
        witness=message.witness,
        version=message.version,
        address=message.address,
        sees=tuple(
            Sight(sight.name, sight.heard, _role(sight.role), sight.timeline, sight.serving)
            for sight in message.sees
        ),
        tags=tuple(message.tags.items()),
        replica_ok=message.replica_ok,
        replica_reason=message.replica_reason,
    )


_ROLES = {str(role): role for role in Role}


def _role(word: str | None) -> Role | None:
    return _ROLES.get(word) if word else None


def _candidate(said: CandidateSaid | None) -> Candidate | None:
    return None if said is None else Candidate(said.name, said.timeline)


def _served(said: ServedSaid | None, received_at: Instant) -> Served | None:
    if said is None:
        return None
    identifier = None if said.system_identifier is None else int(said.system_identifier)
    return Served(identifier, said.timeline, received_at - said.ago)


def _snapshot(said: SnapshotSaid, asked_at: Instant) -> Snapshot | None:
    role = _role(said.role)
    if role is None:
        return None
    return Snapshot(
        asked_at=asked_at - said.age,
        role=role,
        system_identifier=None if said.system_identifier is None else int(said.system_identifier),
        timeline=said.timeline,
        server_version=said.server_version,
        postmaster_started_at=said.postmaster_started_at,
        read_only=said.read_only,
        insert_lsn=said.insert_lsn,
        flush_lsn=said.flush_lsn,
        received_lsn=said.received_lsn,
        replayed_lsn=said.replayed_lsn,
        replayed_timestamp=said.replayed_timestamp,
        replay_age_seconds=said.replay_age_seconds,
        replay_paused=said.replay_paused,
        restores_from_archive=said.restores_from_archive,
        receiver=said.receiver,
        followers=said.followers,
    )


def said_of(snapshot: Snapshot, now: Instant) -> SnapshotSaid:
    """Describe our own snapshot to a peer."""
    identifier = snapshot.system_identifier
    return SnapshotSaid(
        age=max(0.0, snapshot.age(now)),
        role=snapshot.role,
        system_identifier=None if identifier is None else str(identifier),
        timeline=snapshot.timeline,
        server_version=snapshot.server_version,
        postmaster_started_at=snapshot.postmaster_started_at,
        read_only=snapshot.read_only,
        insert_lsn=snapshot.insert_lsn,
        flush_lsn=snapshot.flush_lsn,
        received_lsn=snapshot.received_lsn,
        replayed_lsn=snapshot.replayed_lsn,
        replayed_timestamp=snapshot.replayed_timestamp,
        replay_age_seconds=snapshot.replay_age_seconds,
        replay_paused=snapshot.replay_paused,
        restores_from_archive=snapshot.restores_from_archive,
        receiver=snapshot.receiver,
        followers=snapshot.followers[:MAX_FOLLOWERS],
    )
