"""Secrets: never shown, read from files, and the nearer source wins."""

from pathlib import Path

import pytest

from healthagent.config import (
    ConfigError,
    Secret,
    example,
    load,
)
from tests.agent_yaml import loaded, settings

LONG_SECRET = "correct horse battery staple"


def secret_file(tmp_path: Path, content: str = f"{LONG_SECRET}\n", mode: int = 0o600) -> Path:
    file = tmp_path / "secret"
    file.write_text(content)
    file.chmod(mode)
    return file


def test_a_secret_never_shows() -> None:
    secret = Secret(LONG_SECRET)
    assert LONG_SECRET not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == LONG_SECRET
    assert secret == Secret(LONG_SECRET)
    assert secret != Secret(LONG_SECRET + ".")


def test_a_secret_is_read_from_its_file_without_the_newline(tmp_path: Path) -> None:
    file = secret_file(tmp_path)
    found = loaded(tmp_path, f"peer:\n  secret_file: {file}\ncontrol:\n  token_file: {file}\n")
    assert found.settings.peer.secret == found.settings.control.token == Secret(LONG_SECRET)
    assert LONG_SECRET not in repr(found)
    assert found.warnings == ()


def test_a_secret_file_that_all_can_read_is_a_warning(tmp_path: Path) -> None:
    file = secret_file(tmp_path, mode=0o644)
    found = loaded(tmp_path, f"peer:\n  secret_file: {file}\n")
    assert found.warnings == (
        f"{tmp_path}/agent.yaml:2: peer.secret_file: every user of this machine can read '{file}'",
    )


def test_a_secret_in_a_configuration_that_all_can_read_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "open.yaml"
    file.write_text(f"peer:\n  secret: {LONG_SECRET}\n")
    file.chmod(0o644)
    assert load(file, environment={}).warnings == (
        f"{file}:2: peer.secret: every user of this machine can read this file",
    )


def test_an_example_that_all_can_read_holds_no_secret_to_warn_of(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(example())
    file.chmod(0o644)
    assert load(file, environment={}).warnings == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "must not be empty", id="empty"),
        pytest.param("\n", "must not be empty", id="only a newline"),
        pytest.param(f"{LONG_SECRET}\n{LONG_SECRET}\n", "want one printable line", id="two lines"),
        pytest.param("x" * 5000, "want one printable line of at most 4096 bytes", id="long"),
    ],
)
def test_a_secret_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    file = secret_file(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"peer: {{secret_file: {file}}}")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/agent.yaml:1: peer.secret_file: {said}")


def test_a_secret_file_holds_text(tmp_path: Path) -> None:
    file = secret_file(tmp_path)
    file.write_bytes(b"\xff" * 32)
    with pytest.raises(ConfigError, match="must hold UTF-8 text"):
        loaded(tmp_path, f"peer: {{secret_file: {file}}}")


def test_a_secret_of_a_better_source_goes_before_a_file(tmp_path: Path) -> None:
    text = f"peer: {{secret_file: {secret_file(tmp_path)}}}"
    other = LONG_SECRET.upper()
    assert settings(tmp_path, text, HEALTHAGENT_PEER_SECRET=other).peer.secret == Secret(other)
    assert settings(tmp_path, text, HEALTHAGENT_PEER_SECRET="null").peer.secret is None
    file = str(tmp_path / "secret")
    by_file = settings(tmp_path, f"peer: {{secret: {other}}}", HEALTHAGENT_PEER_SECRET_FILE=file)
    assert by_file.peer.secret == Secret(LONG_SECRET)


def test_the_password_is_for_every_dsn_that_has_none(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        f"postgres: {{password_file: {secret_file(tmp_path)}}}\n"
        "peers:\n"
        "  - {name: b, url: 'http://b', dsn: 'postgresql://b/'}\n"
        "  - {name: c, url: 'http://c', dsn: 'postgresql://me:own@c/'}\n",
    )
    asked = [found.postgres.dsn, *(peer.dsn for peer in found.peers if peer.dsn)]
    assert [dsn.asyncpg_arguments()["password"] for dsn in asked] == [LONG_SECRET, LONG_SECRET, "own"]
