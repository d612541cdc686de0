"""The probe while real servers start, stop, crash and freeze."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine

import asyncpg
import pytest
import uvloop

from healthagent.clock import boottime
from healthagent.core.model import Failure, Reason, Snapshot
from healthagent.demo.cluster import Cluster
from healthagent.demo.postgres import Node
from tests.live.polling import Told, polling

pytestmark = pytest.mark.live


async def test_kill_9_is_known_within_200_ms(postgres: Node) -> None:
    async with polling(postgres, interval=0.5) as told:
        await told.next(Snapshot)
        killed_at = boottime()
        await asyncio.to_thread(postgres.kill9)
        failed = await told.next(Failure)
    assert (failed.reason, failed.conclusive) == (Reason.POSTGRES_DOWN, True)
    assert failed.at - killed_at < 0.2


async def test_a_session_ended_by_an_administrator_is_replaced_and_no_failure(postgres: Node) -> None:
    async with polling(postgres, interval=2.0) as told:
        before = await told.next(Snapshot)
        postgres.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'healthagent'"
        )
        after = await told.found.get()
    assert isinstance(after, Snapshot)
    assert after.asked_at - before.asked_at < 1.0  # not the next tick


async def test_a_crashed_backend_takes_all_sessions_and_the_poller_returns(postgres: Node) -> None:
    async with polling(postgres) as told:
        await told.next(Snapshot)
        victim = await asyncpg.connect(postgres.dsn("postgres"))
        told.forget()
        os.kill(victim.get_server_pid(), signal.SIGKILL)
        await told.next_new_connection(None)
        await told.next(Snapshot)
        victim.terminate()


async def test_start_up_is_told_from_down(streaming: Cluster) -> None:
    _, replica = streaming.nodes
    replica.stop("immediate")
    async with polling(replica) as told:
        assert (await told.next(Failure)).reason is Reason.POSTGRES_DOWN
        replica.configure(restore_command="sleep 0.5; false")
        replica.start(wait=False)
        starting = await told.next(Failure, lambda found: found.reason is not Reason.POSTGRES_DOWN)
        assert starting.reason is Reason.POSTGRES_STARTING
        assert starting.conclusive
        await told.next(Snapshot, within=20)


async def test_a_standby_that_admits_nobody(streaming: Cluster) -> None:
    _, replica = streaming.nodes
    replica.stop()
    replica.configure(hot_standby="off")
    # Before 14 PostgreSQL does not tell this from starting up.
    words = "hot_standby off" if replica.binaries.major >= 14 else "is starting up"
    replica.start(wait=False)
    async with polling(replica) as told:
        failed = await told.next(Failure, lambda found: words in found.detail)
    assert failed.reason is Reason.POSTGRES_STARTING


async def test_a_smart_shutdown_does_not_wait_for_the_probe(postgres: Node) -> None:
    client = await asyncpg.connect(postgres.dsn("postgres"))
    async with polling(postgres, every=0.3) as told:
        await told.next(Snapshot)
        postgres.signal(signal.SIGTERM)
        failed = await told.next(Failure)
        assert (failed.reason, failed.detail) == (Reason.POSTGRES_DOWN, "PostgreSQL is shutting down")
        await client.close()
        await told.next(Failure, lambda found: "nothing listens" in found.detail)


async def test_a_frozen_server_is_silent_and_then_back(postgres: Node) -> None:
    async with polling(postgres, timeout=0.3) as told:
        await told.next(Snapshot)
        await asyncio.to_thread(postgres.freeze)
        failed = await told.next(Failure)
        assert (failed.reason, failed.conclusive) == (Reason.POSTGRES_STALE, False)
        await told.next(Failure)
        assert told.longest < 1.0
        await asyncio.to_thread(postgres.thaw)
        await told.next(Snapshot)


async def test_a_frozen_server_does_not_hold_up_the_end(postgres: Node) -> None:
    async with polling(postgres, timeout=30) as told:
        await told.next(Snapshot)
        postgres.freeze()
        await asyncio.sleep(0.3)  # a statement is on its way


async def test_a_frozen_postmaster_stops_new_connections_only(postgres: Node) -> None:
    async with polling(postgres, timeout=0.3, every=0.3) as told:
        await told.next(Snapshot)
        postgres.freeze_postmaster()
        for _ in range(2):
            await told.next_new_connection(Reason.POSTGRES_STALE)
        told.forget()
        for _ in range(10):
            await told.next(Snapshot, within=1.0)
        assert not [failure for failure in drain(told) if failure]
        postgres.thaw()
        await told.next_new_connection(None)


def drain(told: Told) -> list[Failure]:
    """The failures of the held connection's polls that nobody has looked at."""
    found = [told.found.get_nowait() for _ in range(told.found.qsize())]
    return [one for one in found if isinstance(one, Failure)]


@pytest.mark.parametrize(
    "run", [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
)
def test_nothing_leaks_over_a_hundred_faults(
    postgres: Node, run: Callable[[Coroutine[object, object, None]], None]
) -> None:
    """Sessions at the server, file descriptors and tasks of ours are as many after the faults as before."""
    noise: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
        async with polling(postgres, interval=0.02, timeout=0.1, every=0.05) as told:
            await told.next(Snapshot)
            before = usage()
            for number in range(100):
                await one_fault(told, number)
            await asyncio.to_thread(postgres.restart)
            await told.next(Snapshot)
            await settled(before)

    async def one_fault(told: Told, number: int) -> None:
        if number % 10 == 0:
            await asyncio.to_thread(postgres.kill9)
            await told.next(Failure, lambda found: found.conclusive)
            await asyncio.to_thread(postgres.start)
        else:
            freeze = postgres.freeze_postmaster if number % 10 == 1 else postgres.freeze
            freeze()
            await asyncio.sleep(0.12)
            postgres.thaw()
        told.forget()
        await told.next(Snapshot)

    async def settled(before: tuple[int, int]) -> None:
        """Descriptors of connections that end between two looks may differ for a moment."""
        async with asyncio.timeout(5):
            while any(now > then for now, then in zip(usage(), before, strict=True)) or sessions() > 2:  # noqa: ASYNC110  # a look from outside: no event tells
                await asyncio.sleep(0.05)

    def usage() -> tuple[int, int]:
        return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))

    def sessions() -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'healthagent'"
        return int(postgres.psql(query)[0][0])

    run(main())
    assert noise == []
