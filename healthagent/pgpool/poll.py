"""One look at everything: what the agents say and what pgpool thinks, at the same time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from healthagent.config.pgpool_sync import PgpoolSyncSettings
from healthagent.core.model import Instant
from healthagent.pgpool import pcp
from healthagent.pgpool.agents import Answer, ask_all
from healthagent.pgpool.model import Backend, LiveInfo
from healthagent.pgpool.pcp import Endpoint, PcpError

LIVE_PAUSE = 15.0  # seconds: pgpool's process for a question that hangs lives up to connect_timeout (10 s)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look found. pgpool's part is empty when `pcp_error` says why."""

    answers: Mapping[str, Answer]
    backends: tuple[Backend, ...] = ()
    live: Mapping[int, LiveInfo] | None = None
    pcp_error: str | None = None


def endpoint_of(settings: PgpoolSyncSettings) -> Endpoint:
    password = settings.pcp_password.reveal() if settings.pcp_password else ""
    return Endpoint(
        settings.pcp_host, settings.pcp_port, settings.pcp_socket_dir, settings.pcp_user, password
    )


class Eyes:
    """Looks; remembers only which backends pgpool itself waits for."""

    def __init__(
        self,
        settings: PgpoolSyncSettings,
        session: aiohttp.ClientSession,
        clock: Callable[[], Instant],
    ) -> None:
        self._settings = settings
        self._session = session
        self._clock = clock
        self._endpoint = endpoint_of(settings)
        self._hung_until: dict[int, Instant] = {}

    async def look(self) -> Seen:
        """Ask all agents and pgpool. Takes at most three times `timeout`; never raises for what they do."""
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(ask_all(self._session, self._settings.agents))
            thought = group.create_task(self._ask_pgpool())
        seen = thought.result()
        return Seen(asked.result(), seen.backends, seen.live, seen.pcp_error)

    async def settings(self) -> Mapping[str, str]:
        """pgpool's settings. Raises PcpError."""
        async with pcp.connect(self._endpoint, self._settings.timeout) as connection:
            return await connection.settings()

    async def _ask_pgpool(self) -> Seen:
        try:
            async with pcp.connect(self._endpoint, self._settings.timeout) as connection:
                backends = await connection.backends()
        except PcpError as error:
            return Seen({}, pcp_error=str(error))
        return Seen({}, backends, await self._ask_live(backends))

    async def _ask_live(self, backends: Sequence[Backend]) -> Mapping[int, LiveInfo]:
        """What each PostgreSQL tells pgpool, on a connection each: one that hangs delays no other."""
        due = [b.index for b in backends if self._clock() >= self._hung_until.get(b.index, 0.0)]
        async with asyncio.TaskGroup() as group:
            asked = {index: group.create_task(self._live_info(index)) for index in due}
        return {index: info for index, task in asked.items() if (info := task.result()) is not None}

    async def _live_info(self, index: int) -> LiveInfo | None:
        started_at = self._clock()
        try:
            async with pcp.connect(self._endpoint, self._settings.timeout) as connection:
                return await connection.live_info(index)
        except PcpError:
            if self._clock() - started_at >= self._settings.timeout:
                self._hung_until[index] = started_at + LIVE_PAUSE
            return None
