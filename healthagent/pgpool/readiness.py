"""May clients be sent to this pgpool? Asked at the moment of asking, from the last look."""

from collections.abc import Sequence
from dataclasses import dataclass

from healthagent.core.model import Instant, Role
from healthagent.pgpool.model import Observed, Says


@dataclass(frozen=True, slots=True)
class Look:
    """The last comparison of pgpool with the agents, and when it was begun."""

    at: Instant
    observed: Sequence[Observed] = ()
    alarms: Sequence[str] = ()
    pcp_error: str | None = None


def mismatched(one: Observed) -> bool:
    """Whether pgpool sends traffic to a backend under another role than its PostgreSQL has."""
    role = one.told.role or (one.live.role if one.live else None)
    return (
        one.backend.status.attached and role is not None and one.backend.is_primary != (role is Role.PRIMARY)
    )


def readiness(look: Look | None, now: Instant, max_age: float) -> tuple[bool, str]:
    """Whether pgpool writes where the agents say, and a sentence about it. `max_age` in seconds."""
    if look is None:
        return False, "nothing has been compared yet"
    if now - look.at > max_age:
        return False, f"the last comparison began {now - look.at:.1f} s ago, more than {max_age:g} s"
    if look.pcp_error is not None:
        return False, f"pgpool did not answer: {look.pcp_error}"
    if all(one.told.says is Says.UNKNOWN for one in look.observed):
        return False, "no agent answers"
    primaries = [one for one in look.observed if one.told.says is Says.PRIMARY]
    if len(primaries) != 1:
        return False, f"{len(primaries)} agents permit writes, not one"
    primary = primaries[0]
    if not primary.backend.status.attached:
        return False, f"{primary.name} may take writes, but pgpool has it {primary.backend.status}"
    if not primary.backend.is_primary:
        return False, f"{primary.name} may take writes, but pgpool does not take it for the primary"
    return True, f"pgpool writes to {primary.name}, as the agents say"
