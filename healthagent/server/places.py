"""Where the members are, by configuration and DNS: for links, and for those that have not yet said it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where one member is."""

    url: str  # base URL of its agent
    address: str | None = None  # host:port of its PostgreSQL


# by the name of the configured entry, or the address that DNS gave; this node included
Places = Callable[[], Mapping[str, Place]]


def nowhere() -> Mapping[str, Place]:
    """What is known where nobody is configured."""
    return {}
