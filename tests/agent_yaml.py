"""A configuration file in a test's own folder, readable only by its owner, and what it means."""

from pathlib import Path

from healthagent.config import Configuration, Settings, load


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def loaded(tmp_path: Path, text: str = "", **environment: str) -> Configuration:
    return load(written(tmp_path, text), environment=environment)


def settings(tmp_path: Path, text: str = "", **environment: str) -> Settings:
    return loaded(tmp_path, text, **environment).settings
