"""What reasons, ages and bytes are called on the status page."""

from collections.abc import Iterable, Mapping, Sequence

from healthagent.core.model import Reason, Role
from healthagent.history import Shade
from healthagent.standing import SILENT, UNASKED, Standing

MEANINGS: Mapping[str, str] = {
    Reason.PRIMARY: "it is the primary",
    Reason.FORCED_ON: "an operator forces it to take writes, for a while",
    Reason.REPLICA: "it follows the primary",
    Reason.REPLICA_NO_PRIMARY: "no primary is in sight; reads go on",
    Reason.RUNNING: "PostgreSQL runs",
    Reason.STOPPING: "its agent is stopping",
    Reason.MAINTENANCE: "an operator took it out for maintenance",
    Reason.FORCED_OFF: "an operator took writes away from it, for a while",
    Reason.WITNESS: "a voice for majorities, without PostgreSQL",
    Reason.STARTING_UP: "its agent has just started",
    Reason.POSTGRES_DOWN: "PostgreSQL is down",
    Reason.POSTGRES_STARTING: "PostgreSQL is starting",
    Reason.POSTGRES_STALE: "PostgreSQL does not answer in time",
    Reason.AUTH_FAILED: "PostgreSQL refuses the agent's login",
    Reason.NO_CONNECTION_SLOT: "all connections of PostgreSQL are taken",
    Reason.NO_NEW_CONNECTIONS: "PostgreSQL takes no new connections",
    Reason.PRIVILEGE_MISSING: "the agent's role may not see what is needed",
    Reason.NOT_PRIMARY: "it is a replica",
    Reason.READ_ONLY: "new sessions would be read-only",
    Reason.STALE_TIMELINE: "an old primary: clients were already sent to a newer timeline",
    Reason.SYSTEM_ID_MISMATCH: "a primary of another PostgreSQL cluster is in sight",
    Reason.START_GATE: "newly primary, not every peer has been asked yet",
    Reason.ISOLATED_AT_START: "newly primary, and it hears no majority",
    Reason.START_ALONE: "newly primary, and the other member is silent",
    Reason.LOST_CONFLICT: "two primaries, and another one is the rightful one",
    Reason.DIVERGED: "two primaries, and nothing tells which one is right",
    Reason.RIVAL_DRAINING: "it waits until the clients of the former primary have left",
    Reason.RIVAL_SILENT: "a node that was serving has just fallen silent",
    Reason.ISOLATED: "it hears no majority",
    Reason.STATE_UNSAVED: "its state file is not yet written",
    Reason.NOT_REPLICA: "it is a primary",
    Reason.NO_LOAD_BALANCE: "it is tagged noloadbalance",
    Reason.REPLICATION_DOWN: "it does not stream from the primary",
    Reason.FOLLOWS_STALE: "it follows a node that is superseded",
    Reason.TIMELINE_DIFFERS: "it is on another timeline than the primary",
    Reason.LAGGING: "it is too far behind",
    Reason.LAG_UNKNOWN: "its lag cannot be known",
    Reason.NO_PRIMARY: "no primary is known",
    Reason.NOT_SYNC: "it is no synchronous standby",
    Reason.NOT_ASYNC: "it is no asynchronous standby",
    Reason.NOT_QUORUM: "it is no quorum standby",
    Reason.SYNC_UNKNOWN: "how it is attached is unknown",
    Reason.NOT_STANDBY_LEADER: "there is no standby cluster here",
    Reason.TAG_DIFFERS: "a tag differs",
    Reason.REPLICATION_STATE_DIFFERS: "it replicates in another way",
    SILENT: "its agent is not heard",
    UNASKED: "a Patroni node, which does not say whether it takes reads",
    "wrong_name": "another agent answers in its place",
    "foreign_cluster": "an agent of another cluster answers in its place",
    "misunderstood": "its answer cannot be read",
}

SHADES: Mapping[Shade, str] = {
    Shade.WRITES: "takes writes",
    Shade.READS: "takes reads",
    Shade.PRIMARY_REFUSED: "primary, refused",
    Shade.REPLICA_REFUSED: "replica, refused",
    Shade.OUT: "taken out",
    Shade.DOWN: "PostgreSQL does not answer",
    Shade.SILENT: "not heard",
    Shade.WITNESS: "witness",
    Shade.NOTHING: "not recorded",
}


def meaning(standing: Standing) -> str:
    """Why a member stands as it does: its own sentence, or what its word means."""
    return standing.detail or MEANINGS.get(standing.reason, standing.reason)


def ago(seconds: float) -> str:
    """An age, coarse: what changes each second is read by nobody."""
    return "just now" if seconds < 2 else f"{lasting(seconds)} ago"


def lasting(seconds: float) -> str:
    """A duration."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def size(number: float) -> str:
    """Bytes, in PostgreSQL's units."""
    if number < 1024:
        return f"{int(number)} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1024
        if number < 1024:
            return f"{_three(number)} {unit}"
    return f"{_three(number / 1024)} TB"


def _three(number: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def listed(names: Sequence[str]) -> str:
    """a; a and b; a, b and c; beyond eight a number."""
    if len(names) > 8:
        return f"{', '.join(names[:6])} and {len(names) - 6} more"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def summary(standings: Iterable[Standing]) -> tuple[str, str]:
    """How the cluster does, as (`good` | `warn` | `bad`, one or two sentences); nothing in it ticks."""
    found = list(standings)
    writers = [one.name for one in found if one.writes]
    readers = [one.name for one in found if one.reads]
    mains = [f"{one.name} on timeline {one.timeline}" for one in found if one.role is Role.PRIMARY]
    if len(writers) > 1:
        level, said = "bad", f"{listed(writers)} take writes at the same time."
    elif writers:
        level, said = "good", f"Writes go to {writers[0]}."
    else:
        level, said = "bad", "No node takes writes."
    if len(mains) > 1:
        level = "bad"
        said += f" {len(mains)} PostgreSQL servers are primary: {listed(mains)}."
    elif not mains:
        said += " No PostgreSQL in sight is a primary."
    replicas = [one for one in found if not one.own or not one.witness]
    if readers:
        said += f" Reads go to {listed(readers)}."
    elif len(replicas) > 1:
        said += " No node takes reads."
        level = "warn" if level == "good" else level
    unwell = [one.name for one in found if not one.heard]
    if unwell:
        said += f" Not heard: {listed(unwell)}."
        level = "warn" if level == "good" else level
    return level, said
