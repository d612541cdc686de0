"""What real PostgreSQL answers to the probe, and why it refuses."""

import asyncio
import contextlib
import subprocess
from pathlib import Path

import asyncpg
import pytest

from healthagent.commands.sql import statements
from healthagent.core.model import Reason, Role, Snapshot
from healthagent.demo.binaries import Binaries, give_to_server
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.postgres import Node, Place
from tests.conftest import StartCluster
from tests.live.polling import first, polling, rejected

pytestmark = pytest.mark.live

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


async def test_a_promotion_shows_its_timeline_before_any_checkpoint(streaming: Cluster) -> None:
    primary, replica = streaming.nodes
    replica.configure(checkpoint_timeout="1h", checkpoint_completion_target="0.9")
    primary.psql("CREATE TABLE dirty AS SELECT generate_series(1, 300000)")
    replica.wait_replayed(primary)
    async with polling(replica) as told:
        assert (await told.next(Snapshot)).timeline == 1
        await asyncio.to_thread(replica.promote)
        promoted = await told.next(Snapshot, lambda found: found.role is Role.PRIMARY)
    assert promoted.timeline == 2
    # Else the server was too quick for this test to mean anything.
    assert replica.psql("SELECT timeline_id FROM pg_control_checkpoint()") == [("1",)]


@pytest.mark.parametrize("timeline", [10, 16])
async def test_a_promotion_to_a_timeline_that_is_not_decimal(postgres: Node, timeline: int) -> None:
    postgres.stop()
    segment = f"{timeline - 1:08X}0000000000000010"
    postgres.run("pg_resetwal", "-f", "-l", segment, "-D", str(postgres.data))
    postgres.start()  # once as a primary: pg_resetwal has set wal_level to minimal in pg_control
    postgres.stop()
    signal_file = postgres.data / "standby.signal"
    signal_file.touch()
    give_to_server(signal_file)
    postgres.start()
    async with polling(postgres) as told:
        assert (await told.next(Snapshot)).timeline == timeline - 1
        await asyncio.to_thread(postgres.promote)
        promoted = await told.next(Snapshot, lambda found: found.role is Role.PRIMARY)
        assert promoted.timeline == timeline


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
    assert (plain.reason, "no TLS" in plain.detail) == (Reason.AUTH_FAILED, True)
    postgres.configure(ssl="on")
    assert (await first(postgres, ssl="require")).role is Role.PRIMARY
    unfounded = await rejected(
        postgres, ssl="verify-full", dsn=f"{postgres.dsn()}?sslrootcert={tmp_path}/none"
    )
    assert (unfounded.reason, "a file of the connection" in unfounded.detail) == (Reason.AUTH_FAILED, True)
    trusting = f"{postgres.dsn()}?sslrootcert={postgres.data}/server.crt&sslmode=verify-full"
    misnamed = await rejected(postgres, dsn=trusting)
    assert misnamed.reason is Reason.AUTH_FAILED
    assert "certificate of PostgreSQL is not accepted" in misnamed.detail
