"""Where the agent is asked: its listeners, and what is behind each path that is more than an answer."""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse

from healthagent.agentcheck import AgentCheck
from healthagent.clock import boottime
from healthagent.compatibility import Compatibility
from healthagent.daemon.parts import Parts, StartError
from healthagent.kubernetes import label_families
from healthagent.listening import Inherited, Listening
from healthagent.metrics import Metrics, Sources
from healthagent.peers.exchange import HEADER
from healthagent.peers.listener import PeerListener
from healthagent.server.http import Surface
from healthagent.server.limits import raise_file_limit
from healthagent.tls import server_tls


class Doors:
    """HTTP and agent-check; with `start` false they only listen once another agent has left."""

    def __init__(self, parts: Parts, inherited: Inherited | None, *, start: bool) -> None:
        loop = asyncio.get_running_loop()
        connections = raise_file_limit()
        listening = [Listening(loop, inherited, start=start) for _ in range(2)]
        self.surface = Surface(parts.answers, boottime, connections, loop, listening[0], parts.callers)
        # its clients come and go within 100 ms: a small share of the descriptors is plenty
        self.agent_check = AgentCheck(
            parts.board, boottime, max(16, connections // 8), loop, listening[1], parts.callers
        )
        parts.renew = listening[0].renew
        self._parts = parts
        self._mount()

    async def open(self) -> None:
        """Bind what is configured; StartError names the setting that cannot be had."""
        settings = self._parts.settings
        checks, agent, control = settings.checks.listen, settings.agent_check.listen, settings.control.socket
        with _at("tls", settings.tls.cert):
            tls = server_tls(settings)
        with _at("listen", settings.listen):
            await self.surface.listen(settings.listen.host, settings.listen.port, tls)
        if checks is not None:
            with _at("checks.listen", checks):
                await self.surface.listen(checks.host, checks.port)
        if agent is not None:
            with _at("agent_check.listen", agent):
                await self.agent_check.listen(agent.host, agent.port)
        if control is not None:
            with _at("control.socket", control):
                await self.surface.listen_unix(control)

    async def close(self) -> None:
        self.agent_check.close()
        await self.surface.close()

    def _mount(self) -> None:
        parts, surface = self._parts, self.surface
        metrics = _metrics(parts, surface)
        parts.observer.took = metrics.probe_duration.observe

        async def scrape(request: BaseRequest) -> StreamResponse:
            body, content_type = metrics.render(request.headers.get("Accept"))
            return Response(body=body, headers={"Content-Type": content_type})

        surface.posts["/maintenance"] = parts.control.maintenance
        surface.posts["/override"] = parts.control.override
        surface.pages["/metrics"] = scrape
        surface.pages["/ui"] = parts.page
        _mount_peer(parts.listener, surface)


def _metrics(parts: Parts, surface: Surface) -> Metrics:
    fence = parts.fence
    return Metrics(
        parts.board,
        boottime,
        Sources(
            checks=surface.checks,
            probe_failures=parts.observer.failures,
            verdict_changes=parts.journal.changes,
            peer_failures=parts.client.failures,
            peer_refusals=parts.listener.rejected,
            round_trips=parts.client.round_trips,
            haproxy_sessions=surface.haproxy_states.sessions,
            alarms=parts.alarms,
            fence_runs=fence.runs,
            tasks=lambda: len(asyncio.all_tasks()),
            callers_refused=lambda: parts.callers.refused,
            fence_status=lambda: fence.last.status if fence.last else None,
            more=lambda now: label_families(parts.label, now),
        ),
        [Compatibility(parts.board, boottime, lambda: parts.settings.metrics.compatibility or ())],
    )


def _mount_peer(listener: PeerListener, surface: Surface) -> None:
    async def peer(request: BaseRequest) -> StreamResponse:
        answer = await listener.tell(request)
        return Response(status=answer.status, body=answer.body, content_type=answer.content_type)

    async def exchange(request: BaseRequest) -> StreamResponse:
        answer, signature = await listener.exchange_with(request)
        headers = {HEADER: signature} if signature else None
        return Response(
            status=answer.status, body=answer.body, headers=headers, content_type=answer.content_type
        )

    surface.pages["/peer"] = peer
    surface.exchanges["/peer"] = exchange


@contextmanager
def _at(key: str, place: object) -> Iterator[None]:
    """Name the setting that cannot be had."""
    try:
        yield
    except OSError as error:
        # the system's own words, without those that asyncio puts before them
        number = None if isinstance(error, socket.gaierror | ssl.SSLError) else error.errno
        why = (error.strerror or error) if number is None else os.strerror(number)
        raise StartError(f"{key}: {place}: {why}") from error
