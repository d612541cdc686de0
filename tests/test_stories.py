"""Every file of tests/stories, told again and compared; `pytest --rewrite` writes what is said now."""

from pathlib import Path

import pytest

from tests.story import Story

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))


def retell(text: str) -> str:
    """The story with what is said now below each `----`."""
    title, *blocks = text.strip().split("\n\n")
    story, told = Story(), []
    for block in blocks:
        commands = block.split("----")[0].strip().splitlines()
        said = story.tell([line for line in commands if not line.startswith("#")])
        told.append("\n".join([*commands, "----", *said]))
    return "\n\n".join([title, *told]) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, rewrite: bool) -> None:
    text = path.read_text()
    assert text.startswith("# "), "a story begins with a title in English"
    found = retell(text)
    if rewrite:
        path.write_text(found)
    else:
        assert found == text


def test_there_are_stories() -> None:
    assert len(STORIES) > 30
