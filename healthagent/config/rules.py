"""The rules between keys: what makes each value sensible beside the others.

A rule is checked only when every value that it reads could be read, so one mistake is
complained of once.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields

from healthagent.config.certificates import faults
from healthagent.config.settings import START_GATE, PostgresSettings, Settings
from healthagent.config.values import Address, spell_duration

SHORT = 16  # characters: a shorter secret could be guessed from one signed message
BELIEVED = 3.0  # seconds: peers disbelieve a snapshot that is older


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold: the key to change, the rule, its value, the other keys it reads."""

    path: str
    rule: str
    got: str | None = None
    reads: tuple[str, ...] = ()


def broken_rules(settings: Settings) -> Iterator[Broken]:
    """Yield every rule that does not hold."""
    yield from _freshness(settings)
    yield from _waits(settings)
    yield from _members(settings)
    yield from _witness(settings)
    yield from _listeners(settings)
    yield from _pairs(settings)


def doubts(settings: Settings) -> Iterator[Broken]:
    """Yield what is allowed and hardly meant: it depends on this machine, and on who looks."""
    command = settings.fence.command
    if command is not None and shutil.which(command[0]) is None:
        yield Broken("fence.command", "no program that this user can run, so no fence", repr(command[0]))
    secret, postgres = settings.peer.secret, settings.postgres
    if secret is not None and len(secret.reveal()) < SHORT:
        yield Broken(
            "peer.secret",
            f"shorter than {SHORT} characters, so it could be guessed from one message"
            " (openssl rand -hex 32 makes a good one)",
        )
    if postgres.interval < postgres.max_age <= postgres.interval + postgres.timeout:
        left = spell_duration(round(postgres.max_age - postgres.interval, 3))
        yield Broken(
            "postgres.max_age",
            f"an answer that takes longer than {left} makes this node refuse, though postgres.timeout allows"
            f" {spell_duration(postgres.timeout)}",
            spell_duration(postgres.max_age),
        )


def _freshness(settings: Settings) -> Iterator[Broken]:
    postgres, peer = settings.postgres, settings.peer
    if postgres.max_age <= postgres.interval:
        yield Broken(
            "postgres.max_age",
            f"must be longer than postgres.interval ({spell_duration(postgres.interval)}),"
            " or each answer would be stale before the next one comes",
            spell_duration(postgres.max_age),
            ("postgres.interval",),
        )
    gap = peer.interval + peer.timeout
    if peer.max_age <= gap:
        # Also, the drain is longer than this: whoever can be heard has then been heard before one serves.
        yield Broken(
            "peer.max_age",
            f"must be longer than peer.interval + peer.timeout ({spell_duration(gap)}), or a peer would fall"
            " silent between two answers: lengthen it, or shorten those",
            spell_duration(peer.max_age),
            ("peer.interval", "peer.timeout"),
        )
    longest = min(START_GATE, settings.round_max_age)
    if gap >= longest and settings.drain >= peer.max_age > gap:
        of_drain = " (drain less a sixth)" if longest < START_GATE else ""
        yield Broken(
            "peer.timeout",
            f"peer.interval + peer.timeout must be shorter than {spell_duration(round(longest, 3))}"
            f"{of_drain}, or this node would take its own waiting for a freeze",
            spell_duration(gap),
            ("peer.interval", "peer.max_age", "drain", "postgres.max_age"),
        )
    if (settings.peers or settings.discovery) and settings.postgres.max_age > BELIEVED:
        yield Broken(
            "postgres.max_age",
            f"must be at most {spell_duration(BELIEVED)} with peers: they disbelieve older evidence",
            spell_duration(settings.postgres.max_age),
            ("peers",),
        )


def _waits(settings: Settings) -> Iterator[Broken]:
    if settings.drain < settings.peer.max_age:
        # The next primary may serve only after everybody's evidence of the last one is stale.
        yield Broken(
            "drain",
            f"must be at least peer.max_age ({spell_duration(settings.peer.max_age)}), or two nodes could"
            " serve at once: lengthen it, or shorten peer.max_age, with peer.interval and peer.timeout",
            spell_duration(settings.drain),
            ("peer.max_age",),
        )
    for path in ("start_alone_after", "takeover_after"):
        wait: float = getattr(settings, path)
        if wait < settings.drain:
            yield Broken(
                path,
                f"must be at least drain ({spell_duration(settings.drain)}): lengthen it, or shorten drain",
                spell_duration(wait),
                ("drain",),
            )


def _members(settings: Settings) -> Iterator[Broken]:
    alone = not settings.peers and settings.discovery is None
    if alone and settings.isolation == "demote":
        yield Broken("isolation", "demote needs peers, and none are configured", "demote", ("peers",))
    for entry in settings.peers:
        if entry.name == settings.name and entry.witness != settings.witness:
            this = "is a witness" if settings.witness else "is no witness"
            yield Broken(
                "peers",
                f"{entry.name} is the name of this node too, which {this}: correct the flag or a name",
                f"witness: {'true' if entry.witness else 'false'}",
                ("name", "witness"),
            )


def _witness(settings: Settings) -> Iterator[Broken]:
    if not settings.witness:
        return
    for field in fields(PostgresSettings):
        if getattr(settings.postgres, field.name) != field.default:
            path = f"postgres.{field.name}"
            yield Broken(path, "a witness has no PostgreSQL: remove it", None, ("witness",))
    if settings.fence.command is not None:
        yield Broken("fence.command", "a witness has no PostgreSQL to fence: remove it", None, ("witness",))
    if not settings.peers and settings.discovery is None:
        yield Broken(
            "witness", "needs peers to be a witness for, and none are configured", "true", ("peers",)
        )


def _listeners(settings: Settings) -> Iterator[Broken]:
    before = [("listen", settings.listen)]
    for path, address in (
        ("checks.listen", settings.checks.listen),
        ("agent_check.listen", settings.agent_check.listen),
    ):
        if address is None:
            continue
        for other, taken in before:
            if _overlap(taken, address):
                yield Broken(path, f"must differ from {other} ({taken})", str(address), (other,))
        before.append((path, address))


def _overlap(one: Address, other: Address) -> bool:
    """Say whether the second could not be bound beside the first."""
    return one.port == other.port != 0 and (one.host == other.host or one.everywhere or other.everywhere)


def _pairs(settings: Settings) -> Iterator[Broken]:
    tls = settings.tls
    incomplete = set()
    for path, value, needed, there in (
        ("tls.cert", tls.cert, "tls.key", tls.key),
        ("tls.key", tls.key, "tls.cert", tls.cert),
        ("tls.client_ca", tls.client_ca, "tls.cert", tls.cert),
    ):
        if value is not None and there is None:
            incomplete.add(path)
            yield Broken(path, f"needs {needed} too", str(value), (needed,))
    for fault in faults(tls):
        if fault.path not in incomplete:  # one complaint of a key is enough
            yield Broken(fault.path, fault.rule, repr(str(fault.file)), fault.reads)
    if settings.postgres.password is not None and settings.postgres.dsn.password is not None:
        yield Broken(
            "postgres.password", "must not be given while postgres.dsn holds one too", None, ("postgres.dsn",)
        )
