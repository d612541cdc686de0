"""What a changed configuration means for an agent that runs."""

from dataclasses import dataclass
from typing import Any

from healthagent.config.gather import TABLE
from healthagent.config.keys import Field
from healthagent.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Difference:
    """The keys whose values differ, by what a running agent can do about them."""

    taken: tuple[str, ...]  # in force at once
    restart: tuple[str, ...]  # only after a restart


def reloadable_difference(old: Settings, new: Settings) -> Difference:
    """Name the keys that differ; both are empty when nothing did."""
    differ = [
        field
        for field in TABLE.values()
        if field.file_of is None and value_of(old, field) != value_of(new, field)
    ]
    return Difference(
        tuple(field.path for field in differ if field.key.live),
        tuple(field.path for field in differ if not field.key.live),
    )


def value_of(settings: Settings, field: Field) -> Any:
    if field.path == "peers":
        return settings.discovery or settings.peers
    holder = getattr(settings, field.section) if field.section else settings
    return getattr(holder, field.name)
