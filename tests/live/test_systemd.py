"""The units under a real systemd, in its sandbox, as the files are."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from healthagent.clock import boottime
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent
from tests.bed.sampler import Sampler
from tests.bed.systemd import ROOT, USER, Systemd, missing

pytestmark = pytest.mark.live

UNITS = sorted(path for path in (ROOT / "systemd").iterdir() if path.suffix in (".service", ".path"))
SANDBOXED = [unit for unit in UNITS if unit.name in ("healthagent.service", "healthagent-pgpool.service")]
README = ROOT / "systemd" / "README.md"
AGENT = "healthagent.service"
MOST_EXPOSED = 2.5  # of 10, in the words of `systemd-analyze security`
LOG = "/run/agent.log"
OUTPUT = f"[Service]\nStandardOutput=append:{LOG}\nStandardError=append:{LOG}\n"  # there is no journal


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    problem = missing()
    if problem is not None:
        pytest.fail(problem, pytrace=False)
    with Systemd(tmp_path_factory.mktemp("systemd"), UNITS) as systemd:
        yield systemd


@pytest.fixture
def systemd(booted: Systemd) -> Iterator[Systemd]:
    """With no agent running, nothing remembered, and no drop-in."""
    booted.drop_in(AGENT, OUTPUT)
    booted.write(LOG, "")
    try:
        yield booted
    finally:
        booted.ctl("stop", AGENT, check=False)
        booted.ctl("reset-failed", AGENT, check=False)
        booted.run("rm", "-rf", "/var/lib/healthagent", "/etc/default/healthagent")


@pytest.fixture
def agent(systemd: Systemd, tmp_path: Path, postgres: Node) -> Iterator[Agent]:
    """What asks the agent of the unit, which systemd starts; PostgreSQL's socket is where Debian has it."""
    hba = postgres.data / "pg_hba.conf"
    hba.write_text("local all healthagent peer map=unit\nlocal all all trust\nhost all all all trust\n")
    (postgres.data / "pg_ident.conf").write_text(f"unit {USER} healthagent\n")
    postgres.psql("SELECT pg_reload_conf()")
    postgres.socket_dir.chmod(0o755)
    systemd.path("/run/postgresql").mkdir(exist_ok=True)
    systemd.run("mount", "--bind", str(postgres.socket_dir), "/run/postgresql").check_returncode()
    dsn = f"postgresql:///postgres?host=/run/postgresql&port={postgres.port}"
    found = Agent(
        tmp_path, postgres, settings={"postgres": {"dsn": dsn}, "state_dir": "/var/lib/healthagent"}
    )
    systemd.write("/etc/healthagent.yaml", json.dumps(found.settings))
    yield found
    systemd.ctl("stop", AGENT, check=False)
    systemd.run("umount", "/run/postgresql").check_returncode()


def log(systemd: Systemd) -> str:
    return systemd.path(LOG).read_text()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_every_line(booted: Systemd, unit: Path) -> None:
    place = "/run/systemd/units-of-the-test"
    done = booted.run(
        "env", f"SYSTEMD_UNIT_PATH={place}", "systemd-analyze", "verify", f"{place}/{unit.name}"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", SANDBOXED, ids=lambda unit: unit.name)
def test_how_exposed_it_is(booted: Systemd, unit: Path) -> None:
    done = booted.run("systemd-analyze", "security", "--offline=yes", str(unit))
    found = re.search(rf"Overall exposure level for {re.escape(unit.name)}: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED, done.stdout


def test_a_life_in_the_sandbox(systemd: Systemd, agent: Agent) -> None:
    systemd.write("/etc/default/healthagent", "HEALTHAGENT_LOG_FORMAT=json\n")
    systemd.ctl("start", AGENT)
    assert agent.get("/primary").reason != "starting_up", "started before PostgreSQL was asked"
    agent.wait_for("/primary", 200)
    shown = systemd.show(AGENT, "ActiveState", "StatusText")
    until(
        lambda: (
            systemd.show(AGENT, "StatusText")["StatusText"] == "/primary 200 primary: primary on timeline 1"
        ),
        10.0,
        f"systemctl shows the verdict, not {shown}",
    )
    kernel = systemd.status_of(AGENT)
    assert {kernel[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    assert (kernel["NoNewPrivs"], kernel["Seccomp"], kernel["Umask"]) == ("1", "2", "0077")
    assert systemd.path("/var/lib/healthagent").owner() == USER
    assert [path.name for path in systemd.path("/var/lib/healthagent").iterdir()], "no state was kept"
    systemd.ctl("stop", AGENT)
    after = systemd.show(AGENT, "ActiveState", "Result", "ExecMainStatus")
    assert after == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
    lines = [json.loads(line) for line in log(systemd).splitlines()]
    assert lines[-1]["reason"] == "stopping", lines


def test_a_hangup_takes_what_can_change(systemd: Systemd, agent: Agent) -> None:
    systemd.ctl("start", AGENT)
    pid = systemd.show(AGENT, "MainPID")
    agent.change({"drain": "4s"})
    systemd.write("/etc/healthagent.yaml", json.dumps(agent.settings))
    systemd.ctl("kill", "--signal=HUP", "--kill-who=main", AGENT)
    until(lambda: "reloaded: drain" in log(systemd), 10.0, "the new drain is in force")
    until(lambda: systemd.show(AGENT, "ActiveState") == {"ActiveState": "active"}, 10.0, "it is active again")
    assert systemd.show(AGENT, "MainPID") == pid


def test_a_reload_puts_another_process_in_its_place(systemd: Systemd, agent: Agent, tmp_path: Path) -> None:
    systemd.drop_in(AGENT, OUTPUT + "WatchdogSec=3\n")
    systemd.ctl("start", AGENT)
    agent.wait_for("/primary", 200)
    old = systemd.show(AGENT, "MainPID")["MainPID"]
    sampler = Sampler((), agent.host, agent.port, tmp_path / "samples")
    until(lambda: bool(sampler.samples()), 10.0, "it is sampled")
    try:
        agent.change({"cluster": "main", "takeover_after": "11s"})
        systemd.write("/etc/healthagent.yaml", json.dumps(agent.settings))
        systemd.ctl("reload", AGENT)
        new = systemd.show(AGENT, "MainPID")["MainPID"]
        assert new != old, log(systemd)
        until(lambda: not systemd.path(f"/proc/{old}").exists(), 10.0, "the old process has ended")
        until(six_seconds_later(), 30.0, "two watchdogs have passed")
    finally:
        samples = sampler.stop()
    assert [one for one in samples if one.status != 200] == []
    assert systemd.show(AGENT, "MainPID", "NRestarts", "ActiveState") == {
        "MainPID": new,
        "NRestarts": "0",
        "ActiveState": "active",
    }
    systemd.run("kill", "-KILL", new)  # systemd looks after the new one as it did after the old
    again = {"NRestarts": "1", "ActiveState": "active"}  # active: it listens
    until(lambda: systemd.show(AGENT, *again) == again, 30.0, "it is started anew")
    agent.wait_for("/primary", 200)


def test_a_reload_that_cannot_be_fails_and_changes_nothing(systemd: Systemd, agent: Agent) -> None:
    systemd.ctl("start", AGENT)
    agent.wait_for("/primary", 200)
    pid = systemd.show(AGENT, "MainPID")
    systemd.write("/etc/healthagent.yaml", "drain: soon\n")
    assert systemd.ctl("reload", AGENT, check=False).returncode != 0
    assert "/etc/healthagent.yaml:1: drain: want a duration" in log(systemd)
    systemd.write("/etc/healthagent.yaml", json.dumps({**agent.settings, "name": "other"}))
    assert systemd.ctl("reload", AGENT, check=False).returncode != 0
    assert "--replace: pg1 of cluster main runs here, and not other" in log(systemd)
    assert systemd.show(AGENT, "MainPID", "ActiveState") == {**pid, "ActiveState": "active"}
    assert agent.get("/primary").status == 200


def test_a_loop_that_stands_still_is_restarted(systemd: Systemd, agent: Agent) -> None:
    systemd.drop_in(AGENT, OUTPUT + "WatchdogSec=2\n")
    systemd.ctl("start", AGENT)
    agent.wait_for("/primary", 200)
    pid = systemd.show(AGENT, "MainPID")["MainPID"]
    systemd.run("kill", "-STOP", pid)  # with its SIGABRT systemd sends SIGCONT
    restarted = {"NRestarts": "1", "ActiveState": "active"}
    until(lambda: systemd.show(AGENT, *restarted) == restarted, 60.0, "it is restarted")
    agent.wait_for("/primary", 200)
    assert systemd.show(AGENT, "MainPID")["MainPID"] != pid
    assert "Fatal Python error: Aborted" in log(systemd), "the log does not say where it stood"


def test_a_dead_postgresql_is_no_reason_to_restart(systemd: Systemd, agent: Agent, postgres: Node) -> None:
    systemd.drop_in(AGENT, OUTPUT + "WatchdogSec=2\n")
    postgres.freeze()
    systemd.ctl("start", AGENT)
    agent.wait_for("/primary", 503, "postgres_stale")
    pid = systemd.show(AGENT, "MainPID")
    until(six_seconds_later(), 30.0, "three watchdogs have passed")
    postgres.thaw()
    agent.wait_for("/primary", 200)
    assert systemd.show(AGENT, "MainPID") == pid


def test_a_wrong_configuration_is_not_tried_again(systemd: Systemd, agent: Agent) -> None:
    systemd.write("/etc/healthagent.yaml", "drain: soon\n")
    assert systemd.ctl("start", AGENT, check=False).returncode != 0
    until(lambda: systemd.show(AGENT, "ActiveState") == {"ActiveState": "failed"}, 10.0, "it has failed")
    assert systemd.show(AGENT, "NRestarts", "ExecMainStatus") == {"NRestarts": "0", "ExecMainStatus": "2"}
    assert "/etc/healthagent.yaml:1: drain: want a duration" in log(systemd)


def test_a_fence_hook_asks_and_systemd_acts(systemd: Systemd, agent: Agent) -> None:
    systemd.drop_in(
        "healthagent-fence.service", "[Service]\nExecStart=\nExecStart=/usr/bin/touch /run/fenced\n"
    )
    systemd.ctl("start", "healthagent-fence.path")
    # what is started after the agent has its user and its sandbox, as its hook has
    systemd.drop_in(AGENT, OUTPUT + "ExecStartPost=/usr/bin/touch /run/healthagent/fence\n")
    systemd.ctl("start", AGENT)
    until(systemd.path("/run/fenced").exists, 10.0, "the fence has acted")
    assert not systemd.path("/run/healthagent/fence").exists(), "it would act again and again"


@pytest.mark.parametrize(
    ("unit", "file", "expected"),
    [
        pytest.param("keepalived", "keepalived/restart.conf", {"Restart": "always"}, id="keepalived"),
        pytest.param("pgpool2", "pgpool/pgpool2-seed.conf", {"Restart": "on-failure"}, id="pgpool"),
    ],
)
def test_what_is_added_to_the_unit_of_another(
    booted: Systemd, unit: str, file: str, expected: dict[str, str]
) -> None:
    theirs = f"/run/systemd/units-of-the-test/{unit}.service"
    booted.write(theirs, "[Service]\nExecStart=/bin/true\n")
    booted.write(f"{theirs}.d/ours.conf", (ROOT / file).read_text())
    done = booted.run("systemd-analyze", "verify", theirs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    booted.ctl("daemon-reload")
    assert booted.show(unit, *expected) == expected


def test_a_keepalived_that_would_ignore_its_script_is_not_started(booted: Systemd) -> None:
    """Nor reloaded: it would take the address without asking."""
    unit = "keepalived-of-the-test"
    theirs = f"/run/systemd/units-of-the-test/{unit}.service"
    file = "/run/keepalived-of-the-test.conf"
    good = "global_defs {\n  script_user root\n  enable_script_security\n}\n"
    bad = good.replace("root", "no-such-user")
    service = f'[Service]\nType=exec\nEnvironment="DAEMON_ARGS=-f {file}"\nExecStart=/bin/sleep 600\n'
    booted.write(theirs, service)
    booted.write(f"{theirs}.d/ours.conf", (ROOT / "keepalived/restart.conf").read_text())
    booted.ctl("daemon-reload")
    booted.write(file, bad)
    assert booted.ctl("start", unit, check=False).returncode != 0
    assert booted.show(unit, "ActiveState", "MainPID") == {"ActiveState": "activating", "MainPID": "0"}
    booted.write(file, good)  # it is tried again by itself
    until(lambda: booted.show(unit, "ActiveState") == {"ActiveState": "active"}, 20.0, "it has started")
    pid = booted.show(unit, "MainPID")
    booted.write(file, bad)
    assert booted.ctl("reload", unit, check=False).returncode != 0
    assert booted.show(unit, "MainPID") == pid
    booted.ctl("stop", unit)


@pytest.mark.timeout(300)  # pip fetches a dozen packages
def test_the_install_section_installs(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Its commands as they are, but for Debian's packages and for PostgreSQL, which tests have already."""
    (block,) = re.findall(r"^## Install.*?```sh\n(.*?)```", README.read_text(), re.DOTALL | re.MULTILINE)
    elsewhere = ("apt-get ", "healthagent sql ", "systemctl status ")
    commands = "".join(line + "\n" for line in block.splitlines() if not line.startswith(elsewhere))
    listen = f"127.0.0.1:{free_port()}"
    with Systemd(tmp_path, []) as systemd:
        systemd.run("rm", "-r", "/opt/healthagent")
        systemd.run("sed", "-i", "/^healthagent:/d", "/etc/passwd", "/etc/group")
        systemd.write("/etc/default/healthagent", f"HEALTHAGENT_LISTEN={listen}\nPGPORT=1\n")
        script = f"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\ncd /run/checkout\n{commands}"
        done = systemd.run("sh", "-euxc", script, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        shown = systemd.show(AGENT, "ActiveState", "UnitFileState", "StatusText")
        assert shown["ActiveState"] == "active"
        assert shown["UnitFileState"] == "enabled"
        assert shown["StatusText"].startswith("/primary 503 postgres_down: ")
        check = systemd.run("/usr/local/bin/healthagent", "check", "liveness", "--url", f"http://{listen}")
        assert check.returncode == 0, check.stdout + check.stderr


def six_seconds_later() -> Callable[[], bool]:
    since = boottime()
    return lambda: boottime() - since > 6.0
