"""The lock files pin what pyproject.toml asks for, and name no registry."""

import re
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
GROUPS = PROJECT["dependency-groups"]


def names(requirements: list[str | dict[str, str]]) -> set[str]:
    """The packages that a list of pyproject.toml asks for, those of included groups too."""
    asked: set[str] = set()
    for requirement in requirements:
        if isinstance(requirement, dict):
            asked |= names(GROUPS[requirement["include-group"]])
        else:
            asked.add(re.split(r"[^\w.-]", requirement)[0])
    return asked


@pytest.mark.parametrize(
    ("lock", "asked"),
    [
        ("run", names(PROJECT["project"]["dependencies"])),
        ("build", names(GROUPS["build"])),
        ("demo", names(GROUPS["demo"])),
        ("audit", names(GROUPS["audit"])),
        ("dev", names(PROJECT["project"]["dependencies"]) | names(GROUPS["dev"])),
    ],
)
def test_every_package_is_pinned_with_hashes(lock: str, asked: set[str]) -> None:
    text = (CHECKOUT / "requirements" / f"{lock}.txt").read_text()
    pinned = re.findall(r"^([\w.-]+)==\S+.*\\\n    --hash=sha256:", text, re.MULTILINE)
    assert asked <= set(pinned), "run `make lock`"
    assert "://" not in text
    assert "--index" not in text


def test_what_is_built_with_is_locked() -> None:
    assert names(PROJECT["build-system"]["requires"]) <= names(GROUPS["build"])
