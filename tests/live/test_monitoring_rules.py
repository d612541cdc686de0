"""promtool reads the rules and the example configurations, and runs the rules' unit tests."""

import subprocess
from pathlib import Path

import pytest

from tests.bed.prometheus import promtool

pytestmark = pytest.mark.live
FOLDER = Path(__file__).parents[2] / "monitoring" / "prometheus"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("check", "rules", "healthagent.rules.yml"), id="the rules are valid"),
        pytest.param(("check", "config", "prometheus.yml"), id="nodes listed by hand"),
        pytest.param(("check", "config", "prometheus.dns.yml"), id="nodes found by DNS"),
        *(
            pytest.param(("test", "rules", f"tests/{path.name}"), id=path.name.partition(".")[0])
            for path in sorted(FOLDER.glob("tests/*.yml"))
        ),
    ],
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, folder=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nodes_found_in_kubernetes(tmp_path: Path) -> None:
    """Debian builds promtool without Kubernetes: another way of finding nodes has to stand in for it."""
    text = (FOLDER / "prometheus.kubernetes.yml").read_text()
    discovery = "kubernetes_sd_configs: [{role: pod}]"
    assert text.count(discovery) == 2
    (tmp_path / "prometheus.yml").write_text(
        text.replace(discovery, "http_sd_configs: [{url: http://127.0.0.1/}]")
    )
    (tmp_path / "healthagent.rules.yml").write_text((FOLDER / "healthagent.rules.yml").read_text())
    done = run("check", "config", "prometheus.yml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([promtool(), *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
