"""The PCP client against a real pgpool: does it really answer so?"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from healthagent.core.model import Role
from healthagent.demo.cluster import Cluster
from healthagent.pgpool.model import Kind, Status
from healthagent.pgpool.pcp import Endpoint, PcpError, PcpRefused, connect
from tests.bed.pgpool import Pgpool

pytestmark = pytest.mark.live

StartPgpool = Callable[..., Pgpool]


@pytest.fixture
def start_pgpool(streaming: Cluster) -> Iterator[StartPgpool]:
    """A pgpool before a primary and a replica, with settings of its own."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(
            Pgpool(streaming.root / "pgpool", streaming.nodes, settings)
        )


async def settled(endpoint: Endpoint, index: int, status: Status) -> None:
    """Wait until pgpool has carried out what it accepted; its PCP process restarts meanwhile."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with connect(endpoint, 5.0) as connection:
                    if (await connection.backend(index)).status is status:
                        return
            except PcpError:
                pass
            await asyncio.sleep(0.1)


async def test_what_pgpool_thinks_and_what_servers_tell_it(
    start_pgpool: StartPgpool, streaming: Cluster
) -> None:
    pgpool = start_pgpool()
    async with connect(pgpool.endpoint, 5.0) as connection:
        assert await connection.node_count() == 2
        (first, live_first), (second, live_second) = [await connection.node_info(index) for index in (0, 1)]
        assert [await connection.backend(index) for index in (0, 1)] == [first, second]
        assert (first.is_primary, second.is_primary) == (True, False)
        assert (first.port, second.port) == tuple(node.port for node in streaming.nodes)
        assert first.status.attached
        assert second.status.attached
        assert (live_first.can_log_in, live_first.role) == (True, Role.PRIMARY)
        assert (live_second.can_log_in, live_second.role) == (True, Role.REPLICA)
        settings = await connection.settings()
        assert settings["auto_failback"] == "0"
        assert settings["search_primary_node_timeout"] == "1"
        assert settings["backend_flag1"] == "ALLOW_TO_FAILOVER"
        with pytest.raises(PcpRefused, match="invalid node ID"):
            await connection.backend(7)
        assert await connection.node_count() == 2, "usable after a refusal"


async def test_detach_attach_and_promote(start_pgpool: StartPgpool) -> None:
    endpoint = start_pgpool().endpoint
    async with connect(endpoint, 5.0) as connection:
        connection.request(Kind.DETACH, 1)
        assert await connection.outcome(Kind.DETACH) is None
    await settled(endpoint, 1, Status.DOWN)
    async with connect(endpoint, 5.0) as connection:
        connection.request(Kind.ATTACH, 1)
        assert await connection.outcome(Kind.ATTACH) is None
    await settled(endpoint, 1, Status.WAITING)
    async with connect(endpoint, 5.0) as connection:
        connection.request(Kind.PROMOTE, 0)
        assert "already primary" in (await connection.outcome(Kind.PROMOTE) or "")


async def test_over_tcp_and_with_a_wrong_password(start_pgpool: StartPgpool) -> None:
    pgpool = start_pgpool(pcp_listen_addresses="127.0.0.1")
    tcp = replace(pgpool.endpoint, host="127.0.0.1", socket_dir=None)
    async with connect(tcp, 5.0) as connection:
        assert await connection.node_count() == 2
    for wrong in (replace(tcp, password="wrong"), replace(tcp, user="nobody")):
        with pytest.raises(PcpRefused, match="authentication failed"):
            async with connect(wrong, 5.0):
                pytest.fail("logged in")


async def test_disallowed_detach_is_a_refusal(start_pgpool: StartPgpool) -> None:
    pgpool = start_pgpool(backend_flag1="DISALLOW_TO_FAILOVER")
    async with connect(pgpool.endpoint, 5.0) as connection:
        connection.request(Kind.DETACH, 1)
        assert "failover is disallowed" in (await connection.outcome(Kind.DETACH) or "")


async def test_two_detaches_sent_together_are_both_carried_out(start_pgpool: StartPgpool) -> None:
    """Nearly always in one go; on a busy machine the second waits for the restart of PCP, a second later."""
    endpoint = start_pgpool().endpoint
    async with connect(endpoint, 5.0) as connection:
        for index in (1, 0):
            connection.request(Kind.DETACH, index)
        for _ in range(2):
            assert await connection.outcome(Kind.DETACH) is None
    async with asyncio.timeout(4):
        for index in (1, 0):
            await settled(endpoint, index, Status.DOWN)


async def test_a_frozen_server_hangs_its_own_live_info_only(
    start_pgpool: StartPgpool, streaming: Cluster
) -> None:
    endpoint = start_pgpool(health_check_period=60, sr_check_period=60).endpoint
    streaming.nodes[1].freeze()
    async with connect(endpoint, 1.0) as connection:
        assert (await connection.backend(1)).status.attached
        assert (await connection.node_info(0))[1].role is Role.PRIMARY
    with pytest.raises(PcpError, match=r"did not answer within 0\.5 s"):
        async with connect(endpoint, 0.5) as connection:
            await connection.node_info(1)
