"""The query string of a check: lag limits, tags and replication state, in Patroni's syntax.

A value that cannot be understood is refused with a sentence. Patroni reads it as "no
limit" (its parse_int returns None), and a typo then sends reads to a replica hours behind.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from healthagent.core.model import LagLimit

MAX_FIELDS = 32
REPLICATION_STATES = ("streaming", "in archive recovery")
MODES = ("apply", "write")

_BYTES = {"": 1, "B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(
    r"""\s*(?P<sign>[+-]?)
        (?P<number>0[xX][0-9a-fA-F]+ | (?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
        \s*(?P<unit>[A-Za-z]*)\s*""",
    re.VERBOSE | re.ASCII,
)
_LIMIT = 1 << 63  # LSNs have 64 bits; a larger lag is a typo
_LONGEST = 40  # characters of a lag


class BadQuery(ValueError):
    """A query that cannot be understood: what, why, and what would be."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a check asks beyond its path."""

    limit: LagLimit = field(default_factory=LagLimit)
    replication_state: str | None = None
    received: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


NOTHING = Query()


def parse_query(text: str) -> Query:
    """Read a query string; the first value of a name wins, other names are ignored."""
    if not text:
        return NOTHING
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise BadQuery(f"query: at most {MAX_FIELDS} fields are read") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        values.setdefault(name, value)
    return Query(
        limit=parse_lag(values["lag"]) if "lag" in values else LagLimit(),
        replication_state=_one_of("replication_state", REPLICATION_STATES, values),
        received=_one_of("mode", MODES, values) == "write",
        tags={name[4:]: value for name, value in values.items() if name.startswith("tag_")},
    )


def _one_of(name: str, known: tuple[str, ...], values: Mapping[str, str]) -> str | None:
    value = values.get(name)
    if value is None or value in known:
        return value
    raise BadQuery(f"{name}: want {' or '.join(known)}, got {value[:40]!r}")


def parse_lag(text: str) -> LagLimit:
    """Read a lag: bytes in Patroni's syntax (B kB MB GB TB, 1024), or a time (ms s min h d)."""
    if len(text) > _LONGEST:
        raise BadQuery(f"lag: too long, at most {_LONGEST} characters, got {text[:_LONGEST]!r}...")
    match = _QUANTITY.fullmatch(text)
    wanted = "want bytes (16MB; B kB MB GB TB) or a time (500ms 5s 1min)"
    if match is None:
        raise BadQuery(f"lag: {wanted}, got {text!r}")
    unit = match["unit"]
    if unit not in _BYTES and unit not in _SECONDS:
        raise BadQuery(f"lag: unknown unit {unit!r} (units are case-sensitive), {wanted}")
    number = _number(match["number"])
    if match["sign"] == "-" and number != 0:
        raise BadQuery(f"lag: must not be negative, got {text!r}")
    scaled = number * (_BYTES[unit] if unit in _BYTES else _SECONDS[unit])
    if not math.isfinite(scaled) or scaled >= _LIMIT:
        raise BadQuery(f"lag: too large, got {text!r}")
    if unit in _BYTES:
        return LagLimit(lag_bytes=int(scaled))
    return LagLimit(lag_seconds=float(scaled))


def _number(text: str) -> int | float:
    """A C number as strtol and strtod read it: 0x10, 010 (octal), 1.5, .5, 1e6."""
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    if text.isdigit():
        octal = len(text) > 1 and text[0] == "0"
        if octal and not set(text) <= set("01234567"):
            raise BadQuery(f"lag: {text!r} begins as an octal number but is none")
        return int(text, 8 if octal else 10)
    return float(text)
