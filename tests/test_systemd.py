"""The environment file: every setting in it exists, and is understood as it stands there."""

import re
from pathlib import Path

import pytest

from healthagent.config import load
from healthagent.config.gather import TABLE

FILE = Path(__file__).parent.parent / "systemd" / "healthagent.default"
LINE = re.compile(r"#(?P<name>[A-Z][A-Z_]+)=(?P<value>\S+)")


def assignments() -> dict[str, str]:
    lines = FILE.read_text().splitlines()
    return {found["name"]: found["value"] for line in lines if (found := LINE.fullmatch(line))}


def test_every_line_is_an_explanation_or_an_assignment_that_is_switched_off() -> None:
    """What is copied as it is changes nothing."""
    assert [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")] == []
    assert len(assignments()) == len(re.findall(r"^#\S+=", FILE.read_text(), re.MULTILINE)) > 5


def test_every_assignment_is_explained() -> None:
    before = ""
    for line in FILE.read_text().splitlines():
        if LINE.fullmatch(line):
            assert before.startswith("#"), f"{line} stands there without a word"
        before = line


@pytest.mark.parametrize("name", [name for name in assignments() if name.startswith("HEALTHAGENT_")])
def test_a_setting_is_understood(name: str, tmp_path: Path) -> None:
    value = assignments()[name]
    if name.endswith("_FILE"):  # on the reader's machine it exists
        (tmp_path / "secret").write_text("a secret of enough words\n")
        value = str(tmp_path / "secret")
    found = load(environment={"HEALTHAGENT_NAME": "pg1", name: value})
    assert name in {key.variable for key in TABLE.values()}
    assert found.settings.name == "pg1"
