"""One look at everything: what the agents say and what pgpool thinks, at the same time."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp

from healthagent.config.pgpool_sync import PgpoolSyncSettings
from healthagent.core.model import Instant
from healthagent.pgpool import pcp
from healthagent.pgpool.agents import Answer, ask_all
from healthagent.pgpool.model import Backend, LiveInfo
from healthagent.pgpool.pcp import Endpoint, PcpError, PcpSilent

LIVE_PAUSE = 15.0  # seconds: pgpool's process for a question that hangs lives up to connect_timeout (10 s)
HANGS_A_LOOK = 3  # the rest are found at the next look


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


async def ask_backends(settings: PgpoolSyncSettings) -> tuple[Backend, ...]:
    """pgpool's backends, without asking their servers. Raises PcpError."""
    async with pcp.connect(endpoint_of(settings), settings.timeout) as connection:
        return tuple([await connection.backend(index) for index in range(await connection.node_count())])


class Eyes:
    """Looks; remembers only which servers make pgpool wait."""

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
        """Ask all agents and pgpool. Takes `timeout`, three times at most; never raises for what they do."""
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
        """Ask for all backends on one connection; on another one after each server that makes pgpool wait."""
        error = "nobody was asked"
        for _ in range(HANGS_A_LOOK):
            asking: int | None = None
            found: list[Backend] = []
            live: dict[int, LiveInfo] = {}
            try:
                async with pcp.connect(self._endpoint, self._settings.timeout) as connection:
                    for index in range(await connection.node_count()):
                        if self._hangs(index):
                            found.append(await connection.backend(index))
                            continue
                        asking = index
                        backend, live[index] = await connection.node_info(index)
                        found.append(backend)
                        asking = None
                return Seen({}, tuple(found), live)
            except PcpSilent as silent:
                error = str(silent)
                if asking is None:
                    break
                # One second later than the last one, so that no look asks several of them again.
                pause = LIVE_PAUSE + len(self._hung_until)
                self._hung_until[asking] = self._clock() + pause
            except PcpError as other:
                error = str(other)
                break
        return Seen({}, pcp_error=error)

    def _hangs(self, index: int) -> bool:
        return self._clock() < self._hung_until.get(index, 0.0)
