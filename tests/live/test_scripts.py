"""Shell scripts: shellcheck finds nothing in any of them."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

CHECKOUT = Path(__file__).parents[2]


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.fail("shellcheck is missing: run `apt-get install -y shellcheck` as root", pytrace=False)
    folders = ("scripts", "pgpool", "keepalived", "fencing", "kubernetes", "bench", "tests")
    scripts = [path for folder in folders for path in (CHECKOUT / folder).rglob("*.sh")]
    checked = subprocess.run(
        ["shellcheck", CHECKOUT / ".ci" / "run", *scripts], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
