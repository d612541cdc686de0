"""README.md and the other pages name what there is, all of it."""

import json
import re
from pathlib import Path

import pytest

from healthagent.commands import VERBS
from healthagent.core.model import Reason
from healthagent.openapi import description
from tests.agent_yaml import settings
from tests.bed.certificates import Certificates
from tests.bed.readme import README, blocks, commands, shape

ROOT = README.parent
PAGES = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md")),
    ROOT / "fencing" / "README.md",
    ROOT / "docs" / "security.md",
    ROOT / "docs" / "operating.md",
    ROOT / "SECURITY.md",
]


def table_under(heading: str) -> list[list[str]]:
    """The cells of every table row between a heading and the next one of its level."""
    level = heading.split()[0]
    text = README.read_text().split(f"\n{heading}\n")[1]
    section = re.split(rf"^{level} ", text, flags=re.MULTILINE)[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ") and not line.startswith(("| reason", "| path", "| command", "| what fails"))
    ]


def words(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_refusal_is_explained_once() -> None:
    explained = [word for row in table_under("## When something is wrong") for word in words(row[0])]
    permissions = {
        Reason.PRIMARY,
        Reason.FORCED_ON,
        Reason.REPLICA,
        Reason.REPLICA_NO_PRIMARY,
        Reason.RUNNING,
    }
    assert sorted(explained) == sorted(set(Reason) - permissions)
    assert {f"`{reason}`" for reason in permissions} <= set(re.findall(r"`\w+`", README.read_text()))


def test_every_path_is_in_the_table() -> None:
    documented = {path for row in table_under("## Paths") for path in words(row[0])}
    described = json.loads(description())["paths"]
    answered = {path for path, methods in described.items() if "get" in methods}
    assert documented == answered - {"/lease"}  # which no mode has yet


def test_every_command_is_in_the_table() -> None:
    documented = {words(row[0])[0].split()[0] for row in table_under("## Command line")}
    assert documented == set(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    named = re.findall(r"`((?:healthagent|tests|docs|haproxy|pgpool|scripts|fencing)/[\w./]+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def test_every_example_of_a_command_or_a_file_is_run() -> None:
    for block in blocks():
        assert block.name is not None or block.language in ("sh", "text"), f"README.md:{block.place}"


def test_commands_are_parted_from_what_they_print() -> None:
    [first, *_] = [block for block in blocks() if block.name == "one node"]
    sql, run = commands(first)
    assert sql.typed == "healthagent sql | psql -X postgres"
    assert sql.printed == "CREATE ROLE\nGRANT ROLE\n"
    assert run.printed.startswith("...\n")


@pytest.mark.parametrize(
    ("printed", "fits"),
    [
        pytest.param("age 3  ok\n", True, id="other numbers and blanks"),
        pytest.param("age  no\n", False, id="other words"),
        pytest.param("age 12 ok\nmore\n", False, id="more lines"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_shape_of_a_line(printed: str, fits: bool) -> None:
    assert (shape("age 12 ok\n").fullmatch(printed) is not None) is fits


def test_dots_stand_for_anything() -> None:
    assert shape("...\nb ... d\n").fullmatch("1\n2\nb c d\n")
    assert shape("...\nb\n").fullmatch("b\n")
    assert not shape("...\nb\n").fullmatch("1\n2\n")


def test_the_fence_settings_can_be_copied(tmp_path: Path) -> None:
    page = (ROOT / "fencing" / "README.md").read_text()
    copied = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "fence:" in block]
    assert len(copied) == 2
    for block in copied:
        found = settings(tmp_path, "peers: [{name: pg2, url: http://pg2:8008}]\n" + block)
        assert found.fence.command is not None
        assert (ROOT / "fencing" / Path(found.fence.command[0]).name).exists()
    assert found.isolation_after + found.fence.after == 3.5  # 3 to 4 s, as it says


def test_the_hook_gets_what_its_page_says() -> None:
    page = (ROOT / "fencing" / "README.md").read_text()
    source = (ROOT / "healthagent" / "fence.py").read_text()
    given = set(re.findall(r'"(HEALTHAGENT_\w+)": ', source))
    assert len(given) == 7
    assert given == set(re.findall(r"`(HEALTHAGENT_\w+)`", page))


def test_the_locked_down_configuration_can_be_copied(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    folder = tmp_path / "etc"
    folder.mkdir()
    made = Certificates(tmp_path)
    pem = made.pem("pg1").read_text()
    contents = {
        "tls.crt": pem,
        "tls.key": pem,
        "ca.crt": made.ca.read_text(),
        "peer.secret": "0123456789abcdef",
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o600)
    found = settings(tmp_path, block.replace("/etc/healthagent", str(folder)))
    assert found.checks.allow is not None
    assert found.peer.secret is not None


def test_every_test_that_is_named_as_evidence_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page))
    assert len(named) > 8
    for file, test in named:
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
