"""A real Prometheus for the live tests, its data in a folder of the test.

    with Prometheus(folder, configuration, {"healthagent.rules.yml": text}) as prometheus:
        prometheus.query('sum(up)')         # [Sample({}, 2.0)]
        prometheus.alerts()                 # {("HealthagentNoPrimary", "pending"), ...}

It blocks; from asyncio call it through `asyncio.to_thread`.
"""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.error import HTTPError

import pytest
import yaml

from healthagent.demo.ports import free_port
from healthagent.demo.postgres import until

INSTALL = "apt-get install -y --no-install-recommends prometheus"
START = 30.0  # seconds; a start takes one


class Sample(NamedTuple):
    labels: dict[str, str]
    value: float


class QueryFailed(Exception):
    """Prometheus did not understand a query; the text is its own."""


def promtool() -> str:
    """The program; a test without it fails with the command that installs it."""
    return _program("promtool")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"no {name}: run `{INSTALL}`", pytrace=False)
    return found


class Prometheus:
    """One server on a free port of loopback; `files` are written beside its configuration."""

    def __init__(
        self, folder: Path, configuration: Mapping[str, object], files: Mapping[str, str] | None = None
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log_file = folder / "prometheus.log"
        self._folder = folder
        self._files = {"prometheus.yml": yaml.safe_dump(dict(configuration)), **(files or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def query(self, expression: str) -> list[Sample]:
        """The vector that a query has now. QueryFailed if it is no query."""
        found = self._get("query", query=expression)["result"]
        return [Sample(one["metric"], float(one["value"][1])) for one in found]

    def alerts(self, **labels: str) -> set[tuple[str, str]]:
        """Name and state (pending or firing) of the alerts with these labels."""
        return {
            (alert["labels"]["alertname"], alert["state"])
            for alert in self._get("alerts")["alerts"]
            if labels.items() <= alert["labels"].items()
        }

    def description(self, name: str) -> str:
        """What the first alert of this name says."""
        found = (one for one in self._get("alerts")["alerts"] if one["labels"]["alertname"] == name)
        return str(next(found)["annotations"]["description"])

    def _get(self, what: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
        except HTTPError as error:
            raise QueryFailed(f"{parameters}: {error.read().decode()}") from None
        return data

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, text in self._files.items():
            (self._folder / name).write_text(text)
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    _program("prometheus"),
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            until(self._ready, START, "Prometheus is ready")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"Prometheus exited:\n{self.log_file.read_text()}")
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()  # nothing of its data is wanted
            self._process.wait()
