"""A real agent against its own description: every path answers as described, whatever is thrown at it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from healthagent.demo.postgres import Node
from healthagent.openapi.paths import ALIASES
from tests.bed.agent import Agent

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]
SCHEMATHESIS = (sys.executable, "-m", "schemathesis.cli")
EXAMPLES = "8"  # for each of its sixty operations
# 503 is an answer here. A schema cannot say "one printable character": it wants a letter or digit in `why`,
# the agent takes others too.
CONFIGURATION = """\
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", 503]
[[operations]]
include-path = "/override"
checks.negative_data_rejection.enabled = false
"""


@pytest.fixture
def agent(postgres: Node, tmp_path: Path) -> Iterator[Agent]:
    with Agent(tmp_path, postgres, settings={"peer": {"secret": "sixteen characters and more"}}) as running:
        running.wait_for("/primary", 200)
        yield running


def described(agent: Agent) -> dict[str, Any]:
    found: dict[str, Any] = agent.get("/openapi.json").json
    return found


def test_what_is_described_is_what_there_is(agent: Agent) -> None:
    unknown = agent.get("/no-such-path")
    assert unknown.status == 404
    assert set(unknown.json["paths"]) == described(agent)["paths"].keys()


def test_every_operation_answers_with_a_status_that_is_described(agent: Agent) -> None:
    for path, operations in described(agent)["paths"].items():
        for method, operation in operations.items():
            reply = agent.post(path, {}) if method == "post" else agent.get(path, method.upper())
            assert str(reply.status) in operation["responses"], (method, path)
            if method == "get":
                kind = reply.headers["Content-Type"].partition(";")[0]
                assert kind in operation["responses"][str(reply.status)]["content"], path


def test_schemathesis_finds_nothing(agent: Agent, tmp_path: Path) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    done = subprocess.run(
        [
            *SCHEMATHESIS,
            f"--config-file={configuration}",
            "run",
            f"{agent.url}/openapi.json",
            f"--max-examples={EXAMPLES}",
            "--seed=1",
            "--continue-on-failure",
            f"--exclude-path-regex=^({'|'.join(ALIASES)})$",  # the same answers under other names
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert agent.is_running()
    assert "Traceback" not in agent.log()
