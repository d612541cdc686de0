"""promtool reads the rules, and runs their unit tests."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.live
FOLDER = Path(__file__).parents[2] / "monitoring" / "prometheus"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("check", "rules", "healthagent.rules.yml"), id="the rules are valid"),
        pytest.param(("test", "rules", "healthagent.rules.test.yml"), id="the rules do what they say"),
        pytest.param(("check", "config", "prometheus.yml"), id="the example configuration is valid"),
    ],
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    program = shutil.which("promtool")
    assert program, "promtool is missing: apt-get install -y --no-install-recommends prometheus"
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
