"""Bad input of the bridge: one start names all of it, and a start that is fine is not asked about."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from healthagent.commands import main
from tests.bed.command import ran
from tests.bed.pcp_server import Script, frame, pcp_server
from tests.bed.web import answering, response

NO_AGENT = "pgpool_sync.backends.nope: no agent has this name (there are pg1, pg2)"


def status(name: str, cluster: str = "main", reason: str = "not_primary") -> bytes:
    verdict = {"ok": False, "reason": reason}
    verdicts = {"primary": verdict, "replica": verdict}
    return json.dumps({"name": name, "cluster": cluster, "verdicts": verdicts}).encode()


@pytest.fixture
def agents() -> Iterator[dict[str, str]]:
    """Base URLs of agents that answer: all but `stranger` of the cluster `main`, `w1` a witness."""
    bodies = {
        "pg1": status("pg1"),
        "pg2": status("pg2"),
        "pg3": status("pg3"),
        "stranger": status("stranger", "other"),
        "w1": status("w1", reason="witness"),
    }
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(answering({"/status": response(200, body)}))
            for name, body in bodies.items()
        }


def described(body: bytes) -> list[bytes]:
    """How pgpool describes one of its two backends."""
    index = body.rstrip(b"\0").decode()
    return [frame("h", "CommandComplete", index, f"10.0.0.{index}", "5432", "up", "standby")]


TWO_BACKENDS: Script = {"L": frame("l", "CommandComplete", "2"), "H": described}


@pytest.fixture
def password(tmp_path: Path) -> str:
    path = tmp_path / "pcp-password"
    path.write_text("secret")
    path.chmod(0o600)
    return f"--pcp-password-file={path}"


async def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The problems with which `pgpool-sync` exits; it must do so with 2."""
    with pytest.raises(SystemExit) as caught:
        await asyncio.to_thread(main, ["pgpool-sync", "--timeout=5s", *arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("backends", "problems"),
    [
        pytest.param(
            ("pg1=0", "pg2=0", "nope=1"),
            ["pgpool_sync.backends: pg2: two agents for one backend, pg1 too, got 0", NO_AGENT],
            id="two agents for one backend, and an unknown one",
        ),
        pytest.param(
            ("pg1=0", "pg2=7", "nope=1"),
            [NO_AGENT, "pgpool_sync.backends.pg2: pgpool has no backend 7, only 0 to 1"],
            id="out of range, and an unknown one",
        ),
        pytest.param(
            ("pg1=0", "nope=7"),
            [NO_AGENT, "pgpool_sync.backends.nope: pgpool has no backend 7, only 0 to 1"],
            id="an unknown one that is out of range",
        ),
        pytest.param(
            ("pg1=-1", "nope=1", "pg2=2"),
            [
                "pgpool_sync.backends: pg1: want a whole number from 0 to 127, got '-1'",
                NO_AGENT,
                "pgpool_sync.backends.pg2: pgpool has no backend 2, only 0 to 1",
            ],
            id="no number, an unknown one, out of range by one",
        ),
        pytest.param(
            ("pg1", "nope=1", "pg2=2"),
            [
                "pgpool_sync.backends: want backends such as {pg1: 0, pg2: 1}, got 'pg1'",
                NO_AGENT,
                "pgpool_sync.backends.pg2: pgpool has no backend 2, only 0 to 1",
            ],
            id="no index at all",
        ),
        pytest.param(
            ("nope=x",),
            ["pgpool_sync.backends: nope: want a whole number from 0 to 127, got 'x'", NO_AGENT],
            id="an unknown one without a number",
        ),
    ],
)
@pytest.mark.parametrize("how", [(), ("--once",), ("--write-status=/nowhere/pgpool_status",)], ids=str)
async def test_every_problem_of_the_backends_is_said(
    agents: dict[str, str],
    password: str,
    capsys: pytest.CaptureFixture[str],
    backends: tuple[str, ...],
    problems: list[str],
    how: tuple[str, ...],
) -> None:
    async with pcp_server(TWO_BACKENDS) as (pgpool, _):
        options = [f"--agent={name}={agents[name]}" for name in ("pg1", "pg2")]
        options += [f"--backend={backend}" for backend in backends]
        place = ("--pcp-host=127.0.0.1", f"--pcp-port={pgpool.port}", password)
        assert await refused(capsys, *options, *place, *how) == problems


async def test_strangers_are_said_beside_all_that_needs_nobody(
    agents: dict[str, str], password: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with pcp_server(TWO_BACKENDS) as (pgpool, _):
        said = await refused(
            capsys,
            f"--agent=pg1={agents['pg1']}",
            "--agent=pg2=ftp://nowhere",
            f"--agent=pg3={agents['pg2']}",
            f"--agent=stranger={agents['stranger']}",
            f"--agent=w1={agents['w1']}",
            *("--backend=pg1=0", "--backend=pg2=0", "--backend=pg3=2", "--backend=nope=9", "--backend=w1=1"),
            *("--cluster=main", "--interval=fast", "--pcp-host=127.0.0.1", f"--pcp-port={pgpool.port}"),
            password,
        )
    assert [line.partition(", got")[0] for line in said] == [
        "pgpool_sync.interval: want a duration such as 3s (ms, s, min or h)",
        "pgpool_sync.agents: pg2: want http://HOST:PORT or https://HOST:PORT",
        "pgpool_sync.backends: pg2: two agents for one backend, pg1 too",
        "pgpool_sync.backends.nope: no agent has this name (there are pg1, pg2, pg3, stranger, w1)",
        "pgpool_sync.backends.pg3: pgpool has no backend 2, only 0 to 1",
        "pgpool_sync.backends.nope: pgpool has no backend 9, only 0 to 1",
        "pgpool_sync.agents.w1: it is a witness and cannot speak for backend 1:"
        " give --backend NAME=INDEX for the others only",
        "pgpool_sync.agents.pg3: it calls itself 'pg2', not 'pg3'",
        "pgpool_sync.agents.stranger: it belongs to the cluster 'other', not 'main'",
    ]


async def test_what_is_known_is_said_while_pgpool_is_away(
    agents: dict[str, str], password: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--agent={name}={agents[name]}" for name in ("pg1", "pg2", "stranger")]
    options += ["--backend=pg1=0", "--backend=pg2=7", "--backend=nope=1", f"--pcp-socket-dir={tmp_path}"]
    assert await refused(capsys, *options, password) == [
        "pgpool_sync.backends.nope: no agent has this name (there are pg1, pg2, stranger)",
        "pgpool_sync.agents: they belong to several clusters: pg1 of 'main', pg2 of 'main',"
        " stranger of 'other'",
    ]


def test_a_stranger_ends_the_bridge_while_pgpool_is_away(agents: dict[str, str], tmp_path: Path) -> None:
    options = [f"--agent={name}={agents[name]}" for name in ("pg1", "stranger")]
    options += ["--backend=pg1=0", "--backend=stranger=1", f"--pcp-socket-dir={tmp_path}", "--timeout=5s"]
    for known in ((), ("--cluster=main",)):
        done = ran("pgpool-sync", "--once", *options, *known)
        assert (done.returncode, "'other'" in done.stderr) == (2, True), done.stderr


async def test_another_pgpool_than_was_meant_is_not_asked(
    agents: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with pcp_server(TWO_BACKENDS) as (pgpool, requests):
        said = await refused(
            capsys,
            f"--agent=pg1={agents['pg1']}",
            *("--backend=pg1=7", f"--pcp-port={pgpool.port}", "--pcp-host=127.0.0.1"),
            "--pcp-socket-dir=relative",
        )
    assert [line.partition(":")[0] for line in said] == ["pgpool_sync.pcp_socket_dir"]
    assert requests == []


async def test_nothing_is_guessed_in_place_of_backends_that_cannot_be_read(
    agents: dict[str, str], password: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with pcp_server(TWO_BACKENDS) as (pgpool, requests):
        options = [f"--agent={name}={agents[name]}" for name in ("pg1", "pg2", "pg3")]
        place = ("--pcp-host=127.0.0.1", f"--pcp-port={pgpool.port}", password)
        said = await refused(capsys, *options, "--backend=pg1", *place)
    assert said == ["pgpool_sync.backends: want backends such as {pg1: 0, pg2: 1}, got 'pg1'"]
    assert requests == []


async def test_of_a_file_that_cannot_be_read_nothing_more_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("pgpool_sync: {\n")
    [said] = await refused(capsys, "-c", str(path), "--backend=nope=1")
    assert said.startswith(f"{path}:")


async def test_a_password_in_a_list_that_cannot_be_read_is_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = await refused(capsys, "--agent=pg1=http://u:hunter,2@h:8008", "--agent=pg2=http://b:8008")
    assert "hunter" not in "".join(said)


@pytest.mark.parametrize(
    ("lines", "hosts", "problem"),
    [
        pytest.param(
            None,
            ("127.0.0.1", "localhost"),
            "pgpool_sync.backends: must be given with --write-status: pgpool does not run, so nobody can tell"
            " which agent has the host of which backend; say which is which with --backend NAME=INDEX",
            id="agents that may go by host",
        ),
        pytest.param(
            "up\nup\nup\n",
            ("127.0.0.1", "127.0.0.1"),
            "pgpool_sync.agents: 2, but FILE has 3 backends: say which is which with --backend NAME=INDEX",
            id="a file of another pgpool",
        ),
    ],
)
def test_a_status_file_is_not_written_by_a_guess(
    agents: dict[str, str], tmp_path: Path, lines: str | None, hosts: tuple[str, str], problem: str
) -> None:
    file = tmp_path / "pgpool_status"
    if lines is not None:
        file.write_text(lines)
    options = [
        f"--agent={name}={agents[name].replace('127.0.0.1', host)}"
        for name, host in zip(("pg1", "stranger"), hosts, strict=True)
    ]
    assert wrote(file, *options, f"--pcp-socket-dir={tmp_path}") == (
        2,
        [],
        [
            problem.replace("FILE", str(file)),
            "pgpool_sync.agents: they belong to several clusters: pg1 of 'main', stranger of 'other'",
        ],
    )
    assert file.exists() is (lines is not None)


def wrote(file: Path, *options: str) -> tuple[int, list[str], list[str]]:
    """Exit status of --write-status, and the lines of standard output and standard error."""
    done = ran("pgpool-sync", f"--write-status={file}", "--interval=100ms", "--timeout=5s", *options)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def test_the_status_file_says_who_was_taken_for_whom(agents: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "pgpool_status"
    options = [f"--agent={name}={agents[name]}" for name in ("pg2", "pg1")]
    why = "in the order of the agents, since they share a host and no backends are given"
    assert wrote(file, *options) == (
        0,
        [f"pg2 is backend 0, pg1 is backend 1: {why}", f"{file}: up up"],
        [],
    )
    options += [f"--agent=w1={agents['w1']}", "--backend=pg1=0", "--backend=pg2=1"]
    assert wrote(file, *options) == (
        0,
        ["pg1 is backend 0, pg2 is backend 1: as given", f"{file}: up up"],
        [],
    )


def test_a_witness_is_not_taken_for_a_backend_in_order(agents: dict[str, str], tmp_path: Path) -> None:
    options = [f"--agent={name}={agents[name]}" for name in ("pg1", "w1")]
    status, _, [said] = wrote(tmp_path / "pgpool_status", *options)
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert said.startswith("pgpool_sync.agents.w1: it is a witness and cannot speak for backend 1")


def test_with_all_down_pgpool_must_not_start_and_it_is_said_how_it_can(
    agents: dict[str, str], tmp_path: Path
) -> None:
    """The agents answer, but with nothing that pgpool should act upon."""
    file = tmp_path / "pgpool_status"
    file.write_text("down\ndown\n")
    options = [f"--agent={name}={agents[name]}" for name in ("pg1", "pg2")]
    status, _, [said] = wrote(file, *options)
    assert (status, file.read_text()) == (1, "down\ndown\n")
    assert said == (
        "pgpool must not start now: all 2 backends are refused or down, which it would take for all up;"
        f" to start it with those that no agent refuses, remove {file}"
    )
    file.unlink()
    assert wrote(file, *options)[0] == 0
    assert file.read_text() == "up\nup\n"
