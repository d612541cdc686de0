"""The virtual address of keepalived/: real keepalived, PostgreSQL and agents on hosts of their own."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from healthagent.clock import boottime
from healthagent.demo.binaries import Binaries, environment
from healthagent.demo.postgres import until
from tests.bed.keepalived import CONFIGURATION, VIRTUAL, Holders, Keepalived, configuration
from tests.bed.network import Host, Network
from tests.bed.site import PORT, Site

pytestmark = pytest.mark.live

ELECTION = 4.0  # seconds: keepalived waits for three advertisements and a bit
CHECKED = 4.0  # seconds in which every keepalived has asked its agent several times

Start = Callable[..., tuple[dict[str, Keepalived], Holders]]


@pytest.fixture
def start(site: Site, tmp_path: Path) -> Iterator[Start]:
    """A healthy site whose PostgreSQL listens on every address, with keepalived on each data node."""
    with ExitStack() as stack:

        def start(**wanted: object) -> tuple[dict[str, Keepalived], Holders]:
            site.ready(**wanted)  # type: ignore[arg-type]  # passed on as it is
            for name in reversed(site.data()):  # the primary last
                site.node(name).configure(listen_addresses="*")
                site.node(name).restart()
            site.wait("pg1", "primary")
            hosts = [site.network[name] for name in site.data()]
            found = {}
            for host in hosts:
                one = Keepalived(host, tmp_path, configuration(f"http://{host.address}:{PORT}"))
                stack.callback(one.stop)
                one.start()
                found[host.name] = one
            holders = stack.enter_context(Holders(hosts))
            holders.wait(["pg1"])
            return found, holders

        yield start


def answers(client: Host, binaries: Binaries) -> str:
    """Which PostgreSQL a client elsewhere reaches at the virtual address, and that it can write there."""
    dsn = f"postgresql://postgres@{VIRTUAL}:5432/postgres?connect_timeout=2"
    sql = "CREATE TEMPORARY TABLE t (); SELECT current_setting('cluster_name')"
    done = subprocess.run(
        [*client.prefix, str(binaries.client / "psql"), "-Xqtd", dsn, "-c", sql],
        env=environment(binaries.client),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.strip().rpartition("/")[2] or done.stderr


def neighbour(client: Host) -> str | None:
    """The hardware address that a client has for the virtual address."""
    shown = subprocess.run(
        ["ip", "-n", client.namespace, "neighbour", "show", VIRTUAL],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"lladdr (\S+)", shown.stdout)
    return found[1] if found else None


def hardware(host: Host) -> str:
    file = "/sys/class/net/eth0/address"
    return subprocess.run(
        [*host.prefix, "cat", file], capture_output=True, text=True, check=True
    ).stdout.strip()


AGENT = "http://127.0.0.1:8008"
SETPRIV = "/usr/bin/setpriv --reuid=root --regid=root --clear-groups --no-new-privs "  # for a test


@pytest.fixture(scope="module")
def alone() -> Iterator[Host]:
    """A host without neighbours, with the interface that the configuration names."""
    with Network(["pg1"]) as network:
        yield network["pg1"]


def complaints(host: Host, folder: Path, text: str) -> tuple[int, str]:
    """What restart.conf looks at before a start and a reload."""
    file = folder / "keepalived.conf"
    file.write_text(text)
    unit = (CONFIGURATION.parent / "restart.conf").read_text()
    (before, reload) = re.findall(r"^Exec(?:StartPre|Reload)=(.*keepalived .*)$", unit, re.MULTILINE)
    assert before == reload
    command = before.replace("$DAEMON_ARGS", f"-f {file}").split()
    done = subprocess.run([*host.prefix, *command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_keepalived_understands_every_line(alone: Host, tmp_path: Path) -> None:
    assert complaints(alone, tmp_path, configuration(AGENT)) == (0, "")


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        pytest.param("script_user root", "script_user no-such-user", id="no user"),
        pytest.param('script "/usr/bin/setpriv', 'script "/usr/bin/no-such-program', id="no program"),
        pytest.param("        primary\n", "        primery\n", id="another script"),
        pytest.param("    init_fail\n", "    init_fial\n", id="a mistyped word"),
    ],
)
def test_a_file_that_keepalived_would_use_in_part_is_not_started_with(
    alone: Host, tmp_path: Path, words: str, instead: str
) -> None:
    text = configuration(AGENT)
    assert text.count(words) == 1
    code, said = complaints(alone, tmp_path, text.replace(words, instead))
    assert code != 0, said
    assert said


@pytest.mark.parametrize(
    ("user", "agent", "permits"),
    [
        pytest.param("root", "/usr/bin/true", True, id="all is there"),
        pytest.param("no-such-user", "/usr/bin/true", False, id="no user"),
        pytest.param("root", "/no/such/healthagent", False, id="no program"),
        pytest.param("root", "/etc/passwd", False, id="no program but a file"),
    ],
)
def test_what_cannot_be_asked_does_not_permit(
    alone: Host, tmp_path: Path, user: str, agent: str, permits: bool
) -> None:
    """With a script that it finds missing itself keepalived would take the address: see the next test."""
    assert holds(alone, tmp_path, configuration(AGENT, user, agent)) == permits


def test_without_setpriv_it_would(alone: Host, tmp_path: Path) -> None:
    """Why it is there; when a keepalived has mended that, this fails, and the page may say so."""
    text = configuration(AGENT, agent="/no/such/healthagent").replace(SETPRIV, "")
    assert holds(alone, tmp_path, text)


def holds(host: Host, folder: Path, text: str) -> bool:
    """Whether a keepalived with nobody beside it takes the address, once it could have."""
    one = Keepalived(host, folder, text)
    with Holders([host]) as holders:
        one.start()
        try:
            until(
                lambda: re.search(r"Entering BACKUP|\(primary\) failed", one.log()) is not None,
                20.0,
                "a word",
            )
            since = boottime()
            later = CHECKED + ELECTION
            until(lambda: holders.now() == ["pg1"] or boottime() - since > later, 60.0, "an election")
            return holders.now() == ["pg1"]
        finally:
            one.stop()


def test_it_follows_the_primary(site: Site, start: Start, binaries: Binaries) -> None:
    _, holders = start()
    client = site.network["w1"]
    assert answers(client, binaries) == "pg1"
    assert neighbour(client) == hardware(site.network["pg1"])
    site.node("pg1").kill9()
    holders.wait([])
    site.node("pg2").promote()
    holders.wait(["pg2"])
    # told, not asked: the client has sent nothing since
    until(lambda: neighbour(client) == hardware(site.network["pg2"]), 5.0, "the client was told who has it")
    assert answers(client, binaries) == "pg2"
    site.node("pg1").start()
    site.wait("pg1", "stale_timeline")
    since = boottime()
    until(lambda: boottime() - since > CHECKED, 60.0, "every keepalived has asked again")
    assert answers(client, binaries) == "pg2"
    assert holders.history(since) == []
    assert holders.doubles() == []


def test_it_is_nowhere_during_a_split(site: Site, start: Start, binaries: Binaries) -> None:
    _, holders = start(nodes=2, witness=False)
    site.node("pg2").promote()
    site.wait("pg1", "diverged")
    site.wait("pg2", "diverged")
    holders.wait([])
    since = boottime()
    until(lambda: boottime() - since > CHECKED + ELECTION, 60.0, "an election would have ended")
    assert holders.history(since) == []
    assert "pg" not in answers(site.network["w1"], binaries)
    site.node("pg2").stop()  # a person has decided
    holders.wait(["pg1"])
    assert holders.history() == [[], ["pg1"], [], ["pg1"]]


def test_a_dead_agent_has_no_address(site: Site, start: Start) -> None:
    _, holders = start()
    site.agents["pg1"].kill()
    holders.wait([])
    site.agents["pg1"].start()
    holders.wait(["pg1"])
    assert holders.history() == [[], ["pg1"], [], ["pg1"]]


def test_a_keepalived_that_starts_again_gives_up_what_it_left_behind(site: Site, start: Start) -> None:
    """A killed one leaves the address; the node is still the primary, so nobody else takes it."""
    keepalived, holders = start()
    keepalived["pg1"].kill()
    since = boottime()
    until(lambda: boottime() - since > CHECKED + ELECTION, 60.0, "an election would have ended")
    assert holders.history() == [[], ["pg1"]]
    site.node("pg1").stop()
    site.node("pg2").promote()
    holders.wait(["pg1", "pg2"])  # which is why the unit must restart it
    keepalived["pg1"].start()
    holders.wait(["pg2"])
