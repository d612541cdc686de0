"""What the agents say: `/status` of each, asked at once, each under a deadline.

The code of a check is not enough: a 503 may mean "keep clients off" or "I have just started".
The reason tells them apart, and only reasons that say something about clients make pgpool act.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import aiohttp
import msgspec
from msgspec import Meta

from healthagent.core.model import Reason, Role
from healthagent.pgpool.model import Says, Told

BODY_LIMIT = 512 * 1024  # a `/status` with 64 peers is a tenth of it

Word = Annotated[str, Meta(max_length=255)]
Sentence = Annotated[str, Meta(max_length=2000)]

# A primary that lost, or may have lost, against another, or whose writes a person took away: its clients
# must not go on writing. A primary that merely restarts or has just started its agent is not in here, since
# a detach cuts all sessions; nor is system_id_mismatch: docs/decisions.md.
LOST = frozenset(
    {
        Reason.STALE_TIMELINE,
        Reason.LOST_CONFLICT,
        Reason.DIVERGED,
        Reason.RIVAL_DRAINING,
        Reason.RIVAL_SILENT,
        Reason.ISOLATED,
        Reason.FORCED_OFF,
        "no_lease",
        "lease_expired",
        "no_quorum",
    }
)


class VerdictSaid(msgspec.Struct, frozen=True):
    ok: bool
    reason: Word
    detail: Sentence = ""


class VerdictsSaid(msgspec.Struct, frozen=True):
    primary: VerdictSaid
    replica: VerdictSaid


class StatusSaid(msgspec.Struct, frozen=True):
    """The part of `/status` that matters here."""

    name: Word
    cluster: Word
    verdicts: VerdictsSaid
    role: Role | None = None


DECODER = msgspec.json.Decoder(StatusSaid)


@dataclass(frozen=True, slots=True)
class Silent:
    """An agent that gave no answer that can be used, and why."""

    why: str


Answer = StatusSaid | Silent


def read_status(body: bytes) -> Answer:
    """Read a body of `/status`."""
    try:
        return DECODER.decode(body)
    except (ValueError, RecursionError) as error:  # nested deeper than the decoder goes
        return Silent(f"its /status cannot be read: {error}")


def says(status: StatusSaid) -> Says:
    """Reduce a status to what matters to pgpool. What contradicts itself is unknown."""
    writes, reads = status.verdicts.primary, status.verdicts.replica
    reason = reads.reason if status.role is Role.REPLICA else writes.reason
    if (writes.ok and status.role is not Role.PRIMARY) or (reads.ok and status.role is not Role.REPLICA):
        return Says.UNKNOWN
    if writes.ok:
        return Says.PRIMARY
    if reads.ok:
        return Says.REPLICA
    if reason == Reason.MAINTENANCE or (status.role is Role.PRIMARY and reason in LOST):
        return Says.REFUSED
    if status.role is Role.REPLICA and reason != Reason.STOPPING:
        return Says.UNFIT_REPLICA
    if status.role is None and reason == Reason.POSTGRES_DOWN:
        return Says.DOWN
    return Says.UNDECIDED


def believed(name: str, cluster: str | None, answer: Answer) -> Told:
    """What an answer from `name` is worth; one of another node or another cluster is worth nothing."""
    if isinstance(answer, Silent):
        return Told(why=answer.why)
    if wrong := misplaced(name, cluster, answer):
        return Told(why=wrong)
    verdict = answer.verdicts.replica if answer.role is Role.REPLICA else answer.verdicts.primary
    return Told(says(answer), answer.role, f"{verdict.reason}: {verdict.detail}")


def misplaced(name: str, cluster: str | None, status: StatusSaid) -> str | None:
    """Why this is not the agent that was meant to be asked."""
    if status.name != name:
        return f"it calls itself {status.name!r}, not {name!r}"
    if cluster is not None and status.cluster != cluster:
        return f"it belongs to the cluster {status.cluster!r}, not {cluster!r}"
    return None


def open_session(ca: Path | None, timeout: float) -> aiohttp.ClientSession:
    """The client for all questions; `timeout` is the wall budget of one, in seconds.

    `ca`: who may have signed the agents' certificates; None: the system's list. Raises OSError, and
    ssl.SSLError, which is one, when it cannot be read.
    """
    tls = ssl.create_default_context(cafile=ca)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls),
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # a small body must not become a large one
        headers={"Accept-Encoding": "identity"},
    )


async def ask(session: aiohttp.ClientSession, url: str) -> Answer:
    """Ask one agent. Never raises for what it does."""
    try:
        async with session.get(f"{url}/status", allow_redirects=False) as response:
            if response.status != 200:
                return Silent(f"its /status answered {response.status}")
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > BODY_LIMIT:
                    return Silent(f"its /status is longer than {BODY_LIMIT} bytes")
    except TimeoutError:
        return Silent("it did not answer in time")
    except (aiohttp.ClientError, OSError) as error:
        return Silent(f"it could not be asked: {error}")
    return read_status(body)


async def ask_all(session: aiohttp.ClientSession, urls: Iterable[tuple[str, str]]) -> Mapping[str, Answer]:
    """Ask all agents at once, `urls` being pairs of name and base URL."""
    async with asyncio.TaskGroup() as group:
        asked = {name: group.create_task(ask(session, url)) for name, url in urls}
    return {name: task.result() for name, task in asked.items()}
