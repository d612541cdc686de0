"""promtool reads the alerts that kubernetes/ tells people to copy."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bed.manifests import FOLDER
from tests.bed.prometheus import promtool

pytestmark = pytest.mark.live


def of_bitnami() -> list[dict[str, Any]]:
    extra = yaml.safe_load((FOLDER / "bitnami-postgresql-ha-values.yaml").read_text())["extraDeploy"]
    [rules] = [one for one in extra if one["kind"] == "PrometheusRule"]
    found: list[dict[str, Any]] = rules["spec"]["groups"]
    return found


def of_the_readme() -> list[dict[str, Any]]:
    text = (FOLDER / "README.md").read_text()
    [block] = [part.partition("```")[0] for part in text.split("```yaml\n")[1:]]
    return [{"name": "healthagent", "rules": yaml.safe_load(block)}]


@pytest.mark.parametrize("groups", [of_bitnami(), of_the_readme()], ids=["bitnami", "readme"])
def test_promtool_reads_the_alerts(groups: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    command = [promtool(), "check", "rules", "rules.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
