"""The probe against real PostgreSQL, with real faults."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
import uvloop

from healthagent.clock import boottime
from healthagent.commands.sql import statements
from healthagent.core.model import Failure, Reason, Role, Snapshot
from healthagent.demo.binaries import Binaries, give_to_server
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.postgres import Node, Place
from healthagent.postgres import Poller
from tests.conftest import StartCluster

pytestmark = pytest.mark.live

Found = TypeVar("Found", Snapshot, Failure)


@dataclass
class Told:
    """A sink that keeps what it is told until a test asks."""

    found: asyncio.Queue[Snapshot | Failure] = field(default_factory=asyncio.Queue)
    new_connections: asyncio.Queue[Failure | None] = field(default_factory=asyncio.Queue)
    longest: float = 0.0

    def observe(self, snapshot: Snapshot) -> None:
        self.found.put_nowait(snapshot)

    def observe_failure(self, failure: Failure) -> None:
        self.found.put_nowait(failure)

    def observe_new_connection(self, failure: Failure | None) -> None:
        self.new_connections.put_nowait(failure)

    def probe_took(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)

    async def next(
        self, kind: type[Found], condition: Callable[[Found], bool] = lambda found: True, within: float = 10.0
    ) -> Found:
        """The next snapshot or failure for which `condition` holds; TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while True:
                found = await self.found.get()
                if isinstance(found, kind) and condition(found):
                    return found

    async def next_new_connection(self, reason: Reason | None, within: float = 10.0) -> Failure | None:
        """The next new connection that failed for that reason (None: that did not fail)."""
        async with asyncio.timeout(within):
            while True:
                failure = await self.new_connections.get()
                if (failure and failure.reason) == reason:
                    return failure

    def forget(self) -> None:
        """Look only at what is told from now on."""
        for told in (self.found, self.new_connections):
            while not told.empty():
                told.get_nowait()


@contextlib.asynccontextmanager
async def polling(
    node: Node, *, interval: float = 0.1, timeout: float = 1.0, every: float = 60.0, **arguments: object
) -> AsyncIterator[Told]:
    """Poll a node over TCP, as the role with only pg_monitor unless told otherwise, and end at once."""
    told = Told()
    connect = {"dsn": node.dsn(), **arguments}
    poller = Poller(connect, told, boottime, interval=interval, timeout=timeout, reconnect_every=every)
    task = asyncio.create_task(poller.run())
    try:
        yield told
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.2)
        assert done, "a cancelled poller waits for something"
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def first(node: Node, **arguments: object) -> Snapshot:
    """One snapshot."""
    async with polling(node, **arguments) as told:  # type: ignore[arg-type]  # all go to asyncpg
        return await told.next(Snapshot)


async def rejected(node: Node, **arguments: object) -> Failure:
    """One failure."""
    async with polling(node, **arguments) as told:  # type: ignore[arg-type]  # all go to asyncpg
        return await told.next(Failure)


# What a healthy server says of itself.


async def test_a_primary_and_its_replica(streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    told = await first(primary)
    async with polling(replica) as replica_told:
        heard = await replica_told.next(Snapshot, lambda found: found.received_lsn == found.replayed_lsn)
    assert (told.role, told.timeline, told.missing) == (Role.PRIMARY, 1, ())
    assert [(row.application_name, row.state, row.client_addr) for row in told.followers] == [
        (replica.name, "streaming", "127.0.0.1")
    ]
    assert told.flush_lsn is not None
    assert told.insert_lsn is not None
    assert told.insert_lsn >= told.flush_lsn > 0
    assert (heard.role, heard.timeline, heard.streaming) == (Role.REPLICA, 1, True)
    assert heard.system_identifier == told.system_identifier is not None
    assert heard.receiver is not None
    assert (heard.receiver.host, heard.receiver.port) == (primary.host, primary.port)
    assert heard.receiver.application_name == replica.name
    assert heard.receiver.latest_end_lsn is not None
    assert heard.receiver.latest_end_lsn >= told.flush_lsn
    assert told.server_version == heard.server_version >= 120000


async def test_lag_replay_time_and_pause(streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    async with polling(replica) as told:
        primary.psql("CREATE TABLE t ()")
        fresh = await told.next(Snapshot, lambda found: found.replayed_timestamp is not None)
        assert fresh.replay_age_seconds is not None
        assert -1 < fresh.replay_age_seconds < 10
        replica.psql("SELECT pg_wal_replay_pause()")
        await told.next(Snapshot, lambda found: found.replay_paused)
        primary.psql("CREATE TABLE u AS SELECT generate_series(1, 1000)")
        behind = await told.next(
            Snapshot, lambda found: (found.received_lsn or 0) > (found.replayed_lsn or 0)
        )
        assert behind.streaming


async def test_a_cascading_replica_names_its_own_upstream(streaming: Cluster) -> None:
    _, middle = streaming.nodes
    last = streaming.add_standby(middle)
    told, heard = await first(last), await first(middle)
    assert told.receiver is not None
    assert told.receiver.port == middle.port
    assert [row.application_name for row in heard.followers] == [last.name]
    assert heard.streaming


async def test_a_replica_that_only_restores_knows_its_timeline_without_a_receiver(streaming: Cluster) -> None:
    _, replica = streaming.nodes
    replica.configure(primary_conninfo="", restore_command="false")
    replica.restart()
    told = await first(replica)
    assert (told.role, told.receiver, told.timeline) == (Role.REPLICA, None, 1)
    assert told.replication_state == "in archive recovery"


async def test_over_the_unix_socket(postgres: Node) -> None:
    assert (await first(postgres, host=str(postgres.socket_dir), port=postgres.port)).role is Role.PRIMARY


# Timelines.


@pytest.mark.parametrize("timeline", [2, 10, 16])
async def test_a_promotion_shows_its_timeline_at_once(postgres: Node, timeline: int) -> None:
    """No checkpoint follows for an hour: pg_control_checkpoint() would still tell of the old timeline."""
    postgres.stop()
    segment = f"{timeline - 1:08X}0000000000000010"
    postgres.run("pg_resetwal", "-f", "-l", segment, "-D", str(postgres.data))
    postgres.start()  # once as a primary: pg_resetwal has set wal_level to minimal in pg_control
    postgres.stop()
    signal_file = postgres.data / "standby.signal"
    signal_file.touch()
    give_to_server(signal_file)
    postgres.configure(checkpoint_timeout="1h", checkpoint_completion_target="0.9")
    postgres.start()
    async with polling(postgres) as told:
        assert (await told.next(Snapshot)).timeline == timeline - 1
        await asyncio.to_thread(postgres.promote)
        promoted = await told.next(Snapshot, lambda found: found.role is Role.PRIMARY)
        assert promoted.timeline == timeline
        assert told.longest < 1.0


async def test_a_server_restored_from_elsewhere_has_another_identity(start_cluster: StartCluster) -> None:
    before = start_cluster(1).nodes[0]
    async with polling(before) as told:
        old = await told.next(Snapshot)
        before.stop()
        after = start_cluster([Place("restored", port=before.port)], same_system=False).nodes[0]
        assert after.port == before.port
        new = await told.next(Snapshot, lambda found: found.system_identifier != old.system_identifier)
        assert new.system_identifier is not None


# What new sessions get.


async def test_sessions_that_would_be_read_only(postgres: Node) -> None:
    async with polling(postgres, every=0.3) as told:
        postgres.psql("ALTER DATABASE postgres SET default_transaction_read_only = on")
        await told.next(Snapshot, lambda found: found.read_only)
        reset = "ALTER DATABASE postgres RESET default_transaction_read_only"
        postgres.psql(f"BEGIN READ WRITE; {reset}; COMMIT")
        await told.next(Snapshot, lambda found: not found.read_only)
        postgres.configure(default_transaction_read_only="on")
        await told.next(Snapshot, lambda found: found.read_only)


async def test_a_read_only_role_for_the_agent_says_nothing_of_others(postgres: Node) -> None:
    postgres.psql("ALTER ROLE healthagent SET default_transaction_read_only = on")
    assert not (await first(postgres)).read_only


async def test_settings_that_would_stop_the_probe_do_not(streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    primary.psql("ALTER ROLE healthagent SET search_path = public, pg_catalog")
    primary.psql("ALTER ROLE healthagent SET default_transaction_isolation = 'serializable'")
    primary.psql(
        "CREATE FUNCTION public.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true';"
        "GRANT USAGE ON SCHEMA public TO PUBLIC"
    )
    replica.wait_replayed(primary)
    assert (await first(primary)).role is Role.PRIMARY
    assert (await first(replica)).role is Role.REPLICA


async def test_locks_on_catalogs_do_not_hold_the_probe_up(streaming: Cluster) -> None:
    primary, _ = streaming.nodes
    async with polling(primary) as told:
        await told.next(Snapshot, lambda found: len(found.followers) == 1)
        locker = await asyncpg.connect(primary.dsn("postgres"))
        async with locker.transaction():
            for catalog in ("pg_authid", "pg_stat_replication", "pg_stat_wal_receiver", "pg_settings"):
                await locker.execute(f"LOCK TABLE {catalog} IN ACCESS EXCLUSIVE MODE")
            told.forget()
            for _ in range(5):
                assert len((await told.next(Snapshot, within=1.0)).followers) == 1
        await locker.close()


# Refusals.


async def test_the_printed_role_misses_nothing(streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    primary.psql(statements("Agent 2"))
    replica.wait_replayed(primary)
    for node in streaming.nodes:
        assert (await first(node, user="Agent 2")).missing == ()


async def test_less_than_pg_monitor_is_named_and_not_guessed_from(streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    primary.psql("CREATE ROLE plain LOGIN")
    replica.wait_replayed(primary)
    told = await first(primary, user="plain")
    assert (told.timeline, told.missing) == (1, ("pg_stat_replication",))
    heard = await first(replica, user="plain")
    assert heard.receiver is not None
    assert (heard.receiver.status, heard.missing) == ("unknown", ("pg_stat_wal_receiver",))


async def test_a_revoked_pg_control_costs_only_the_identity(postgres: Node) -> None:
    postgres.psql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    told = await first(postgres)
    assert (told.role, told.timeline, told.system_identifier) == (Role.PRIMARY, 1, None)
    assert told.missing == ("pg_control",)


async def test_a_revoked_function_of_the_poll_is_a_privilege_missing(postgres: Node) -> None:
    postgres.psql("REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC")
    failed = await rejected(postgres)
    assert failed.reason is Reason.PRIVILEGE_MISSING
    assert "pg_walfile_name" in failed.detail


async def test_a_wrong_password(binaries: Binaries) -> None:
    with (
        Template(binaries, passwords={"guarded": "right"}) as template,
        Cluster(binaries, 1, template=template) as cluster,
    ):
        node = cluster.nodes[0]
        assert (await first(node, user="guarded", password="right")).role is Role.PRIMARY
        failed = await rejected(node, user="guarded", password="wrong-word")
    assert failed.reason is Reason.AUTH_FAILED
    assert "wrong-word" not in failed.detail


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"database": "absent"}, 'database "absent" does not exist', id="database"),
        pytest.param({"user": "absent"}, 'role "absent" does not exist', id="role"),
    ],
)
async def test_a_login_that_cannot_work(postgres: Node, arguments: dict[str, str], words: str) -> None:
    failed = await rejected(postgres, **arguments)
    assert (failed.reason, failed.conclusive) == (Reason.AUTH_FAILED, True)
    assert words in failed.detail


async def test_all_slots_taken(start_cluster: StartCluster) -> None:
    node = start_cluster(1, settings={"max_connections": 20, "max_wal_senders": 0}).nodes[0]
    async with polling(node, every=0.3) as told, contextlib.AsyncExitStack() as taken:
        await told.next(Snapshot)
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                connection = await asyncpg.connect(node.dsn("postgres"))
                taken.push_async_callback(connection.close)
        await told.next_new_connection(Reason.NO_CONNECTION_SLOT)
        told.forget()
        await told.next(Snapshot)  # over the held connection
        assert (await rejected(node)).reason is Reason.NO_CONNECTION_SLOT


@pytest.fixture
def certified(postgres: Node) -> Node:
    """A server with a certificate for "localhost" in its folder, not yet in use."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=localhost", "-days", "2", "-keyout", "server.key", "-out", "server.crt"]
    subprocess.run(command, cwd=postgres.data, check=True, capture_output=True)
    give_to_server(postgres.data / "server.key")
    give_to_server(postgres.data / "server.crt")
    return postgres


async def test_tls(certified: Node, tmp_path: Path) -> None:
    postgres = certified
    plain = await rejected(postgres, ssl="require")
    assert (plain.reason, "no TLS" in plain.detail) == (Reason.POSTGRES_DOWN, True)
    postgres.configure(ssl="on")
    assert (await first(postgres, ssl="require")).role is Role.PRIMARY
    unfounded = await rejected(
        postgres, ssl="verify-full", dsn=f"{postgres.dsn()}?sslrootcert={tmp_path}/none"
    )
    assert (unfounded.reason, "certificate file" in unfounded.detail) == (Reason.POSTGRES_DOWN, True)
    trusting = f"{postgres.dsn()}?sslrootcert={postgres.data}/server.crt&sslmode=verify-full"
    misnamed = await rejected(postgres, dsn=trusting)
    assert misnamed.reason is Reason.POSTGRES_DOWN
    assert "certificate of PostgreSQL is not accepted" in misnamed.detail


# Servers that start, stop, crash and freeze.


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
    replica.start(wait=False)
    async with polling(replica) as told:
        failed = await told.next(Failure, lambda found: "hot_standby off" in found.detail)
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
        postgres.freeze()
        failed = await told.next(Failure)
        assert (failed.reason, failed.conclusive) == (Reason.POSTGRES_STALE, False)
        await told.next(Failure)
        assert told.longest < 0.5
        postgres.thaw()
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
