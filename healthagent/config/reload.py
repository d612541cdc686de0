"""What a changed configuration means for an agent that runs."""

from dataclasses import dataclass, replace
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
    fixed = [field for field in differ if not field.key.live or _is_discovery(field, old, new)]
    return Difference(
        tuple(field.path for field in differ if field not in fixed),
        tuple(field.path for field in fixed),
    )


def with_live_keys(old: Settings, new: Settings) -> Settings:
    """The settings in force after a reload: what can change is new, the rest is as it was."""
    top = {
        field.name: getattr(new, field.name) for field in TABLE.values() if _live(field) and not field.section
    }
    if _is_discovery(TABLE["peers"], old, new):
        del top["peers"]
    sections: dict[str, dict[str, Any]] = {}
    for field in TABLE.values():
        if _live(field) and field.section:
            sections.setdefault(field.section, {})[field.name] = getattr(
                getattr(new, field.section), field.name
            )
    for section, values in sections.items():
        top[section] = replace(getattr(old, section), **values)
    return replace(old, **top)


def _live(field: Field) -> bool:
    return field.key.live and field.file_of is None


def _is_discovery(field: Field, old: Settings, new: Settings) -> bool:
    """Whether these are peers found by DNS, before or after: a list can change while running, that cannot."""
    return field.path == "peers" and (old.discovery is not None or new.discovery is not None)


def value_of(settings: Settings, field: Field) -> Any:
    if field.path == "peers":
        return settings.discovery or settings.peers
    holder = getattr(settings, field.section) if field.section else settings
    return getattr(holder, field.name)
