"""The shipped failover script: what pgpool hands it, and what it does then."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "pgpool" / "failover.sh"


def run(
    tmp_path: Path, *arguments: str, agents: str = "exit 0", psql: str = "echo t"
) -> tuple[int, str, str]:
    """Exit status, standard error, and what psql was called with ("" if it was not)."""
    called = tmp_path / "called"
    for name, script in (("healthagent", agents), ("psql", f'echo "$@" > {called}; {psql}')):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    ran = subprocess.run(
        [str(SCRIPT), *arguments],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stderr, called.read_text() if called.exists() else ""


def test_the_primary_failed_and_nobody_objects(tmp_path: Path) -> None:
    status, said, psql = run(tmp_path, "0", "0", "1", "10.0.0.12", "5432")
    assert status == 0
    assert "backend 1 takes writes" in said
    assert "-h 10.0.0.12 -p 5432 -d postgres -c SELECT pg_promote(true, 30)" in psql


@pytest.mark.parametrize(
    ("arguments", "agents", "why"),
    [
        pytest.param(("1", "0", "0", "h", "5432"), "exit 0", "nothing to promote", id="a standby failed"),
        pytest.param(
            ("0", "-1", "1", "h", "5432"), "exit 0", "nothing to promote", id="there was no primary"
        ),
        pytest.param(
            ("0", "0", "-1"), "exit 0", "VETO: no backend is left", id="%m is -1, %H and %r are empty"
        ),
        pytest.param(("0", "0", "1", "h"), "exit 0", "VETO: backend 1 has no port", id="%r is empty"),
        pytest.param((), "exit 0", "VETO: no backend is left", id="no argument at all"),
        pytest.param(
            ("0", "0", "1", "h", "5432"),
            "echo pg2 is a primary >&2; exit 1",
            "VETO: pg2 is a primary",
            id="objection",
        ),
        pytest.param(("0", "0", "1", "h", "5432"), "exit 2", "VETO", id="healthagent is set up wrongly"),
        pytest.param(("0", "0", "1", "h", "5432"), "exec /nowhere", "VETO", id="healthagent does not start"),
    ],
)
def test_it_does_not_promote(tmp_path: Path, arguments: tuple[str, ...], agents: str, why: str) -> None:
    status, said, psql = run(tmp_path, *arguments, agents=agents)
    assert (status, psql) == (0, "")
    assert why in said


@pytest.mark.parametrize(
    "psql", [pytest.param("echo f", id="not in time"), pytest.param("exit 2", id="cannot connect")]
)
def test_a_promotion_that_failed_is_said(tmp_path: Path, psql: str) -> None:
    status, said, _ = run(tmp_path, "0", "0", "1", "h", "5432", psql=psql)
    assert (status, "FAILED" in said) == (1, True)


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.fail("no shellcheck is installed: run `apt-get install shellcheck` as root", pytrace=False)
    checked = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")
