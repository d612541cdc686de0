"""Everything that is wrong with what was configured, in one go: a start that fails says all of it.

What a value is, the settings know; which numbers and hosts there are, pgpool knows; who an agent is, the
agent. Each is asked once, and who is away adds nothing.
"""

import asyncio
from collections.abc import Collection, Sequence

from healthagent.config import PgpoolSyncSettings
from healthagent.pgpool.agents import ask_all, open_session
from healthagent.pgpool.assignment import answered_wrongly, assign, known_before, witnesses
from healthagent.pgpool.model import Backend
from healthagent.pgpool.pcp import PcpError
from healthagent.pgpool.poll import ask_backends

SECTION = "pgpool_sync"
# pgpool is not asked at another place, or as another user, than was meant
PCP_KEYS = frozenset(
    f"{SECTION}.{key}"
    for key in ("pcp_host", "pcp_socket_dir", "pcp_port", "pcp_user", "pcp_password", "pcp_password_file")
)


async def every_problem(
    settings: PgpoolSyncSettings, said: Sequence[str] = (), bad: Collection[str] = ()
) -> list[str]:
    """The problems `said` already, and all that the settings, pgpool and the agents add to them.

    `bad` are the keys of the configuration whose values could not be read, or in part only.
    """
    agents_read = f"{SECTION}.agents" not in bad
    found = [*said, *(known_before(settings) if agents_read or settings.agents else ())]
    # In place of backends that cannot be read nothing is guessed, nor from some of the agents.
    sure = bool(settings.backends) or (agents_read and f"{SECTION}.backends" not in bad)
    asks_pgpool = sure and PCP_KEYS.isdisjoint(bad) and bool(settings.agents or settings.backends)
    urls = [(name, url) for name, url in settings.agents if url]
    try:
        async with open_session(settings.ca, settings.timeout) as session, asyncio.TaskGroup() as group:
            answers_of = group.create_task(ask_all(session, urls))
            backends_of = group.create_task(_backends(settings)) if asks_pgpool else None
    except OSError as error:  # the file of authorities
        return [*found, str(error)]
    answers, backends = answers_of.result(), backends_of.result() if backends_of else ()
    if backends:
        assigned, problems = assign(settings, backends)
        found += problems
        found += witnesses(assigned, answers)
    return [*found, *answered_wrongly(settings.cluster, answers)]


async def _backends(settings: PgpoolSyncSettings) -> Sequence[Backend]:
    try:
        return await ask_backends(settings)
    except PcpError:
        return ()
