"""The label of the pod and a real agent: it comes and goes with the verdict, and delays no answer."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from healthagent.demo.postgres import Node
from tests.bed.agent import Agent
from tests.bed.certificates import Certificates
from tests.bed.kubernetes_api import LABEL, NAME, PodServer

pytestmark = pytest.mark.live

LIMIT = 0.5  # seconds for an answer on a busy machine; the API's time-out is 2 s


@contextlib.asynccontextmanager
async def pod(tmp_path: Path, node: Node, label: str | None) -> AsyncIterator[tuple[PodServer, Agent]]:
    """An agent, not yet started, beside `node`, and the API of its pod."""
    certificates = Certificates(tmp_path)
    async with PodServer(tls=certificates.server("127.0.0.1"), label=label) as api:
        api.files(tmp_path, certificates.ca)
        files = {"token_file": str(tmp_path / "token"), "ca_file": str(tmp_path / "ca.crt")}
        wanted = {"role_label": LABEL, "pod": NAME, "uid": api.uid, "api": api.url, **files}
        agent = Agent(tmp_path, node, settings={"kubernetes": wanted})
        try:
            yield api, agent
        finally:
            await asyncio.to_thread(agent.kill)


async def test_the_label_lives_as_long_as_the_200(tmp_path: Path, postgres: Node) -> None:
    async with pod(tmp_path, postgres, "replica") as (api, agent):
        await asyncio.to_thread(agent.start)
        await api.says("primary")
        assert api.history in (["primary"], [None, "primary"])
        await asyncio.to_thread(postgres.kill9)
        await api.says(None)
        await asyncio.to_thread(postgres.start)
        await api.says("primary")
        began = time.monotonic()
        assert await asyncio.to_thread(agent.stop) == 0
        assert time.monotonic() - began < 5
        assert api.label is None


async def test_an_api_that_hangs_delays_no_answer_and_no_end(tmp_path: Path, postgres: Node) -> None:
    async with pod(tmp_path, postgres, None) as (api, agent):
        await asyncio.to_thread(agent.start)
        await api.says("primary")
        api.hanging = asyncio.Event()
        await asyncio.to_thread(postgres.kill9)
        await asyncio.to_thread(agent.wait_for, "/primary", 503)
        slowest = 0.0
        async with asyncio.timeout(20):
            while not (status := await asyncio.to_thread(agent.status))["kubernetes"]["error"]:
                began = time.monotonic()
                assert (await asyncio.to_thread(agent.get, "/primary")).status == 503
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.02)
        assert slowest < LIMIT
        assert status["kubernetes"]["may_say"] == ["primary"]
        assert any("the pod may still say healthagent.io/role=primary" in one for one in status["alarms"])
        metrics = (await asyncio.to_thread(agent.get, "/metrics")).json
        assert 'healthagent_kubernetes_label_stale{cluster="main",name="pg0"} 1.0' in metrics.replace(
            f'name="{agent.name}"', 'name="pg0"'
        )
        began = time.monotonic()
        assert await asyncio.to_thread(agent.stop) == 0
        assert time.monotonic() - began < 5
        assert "the agent ends although the pod may still say" in agent.log()
        # the next start takes it away before anything else
        api.hanging.set()
        await asyncio.to_thread(agent.start)
        await api.says(None)


async def test_a_replacement_leaves_the_label_where_it_is(tmp_path: Path, postgres: Node) -> None:
    async with pod(tmp_path, postgres, None) as (api, agent):
        await asyncio.to_thread(agent.start)
        await api.says("primary")
        await asyncio.to_thread(agent.replace)
        # the new one looks for itself, and finds nothing to change
        async with asyncio.timeout(20):
            while (await asyncio.to_thread(agent.status))["kubernetes"]["seen"] != "primary":  # noqa: ASYNC110  # of another process
                await asyncio.sleep(0.02)
        assert api.history == ["primary"]


async def test_what_is_missing_is_said_at_the_start(tmp_path: Path, postgres: Node) -> None:
    agent = Agent(tmp_path, postgres, settings={"kubernetes": {"role_label": LABEL}})
    agent.environment = {"KUBERNETES_SERVICE_HOST": "", "KUBERNETES_SERVICE_PORT": ""}
    agent.start(wait=False)
    assert await asyncio.to_thread(agent.wait, 30) == 1
    assert agent.log() == (
        "kubernetes.api: must be set where KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not: "
        "this is no pod, or leave kubernetes.role_label out\n"
    )
