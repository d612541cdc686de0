"""The bill of materials says what the lock says, and the audit would ask about all that is locked."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".cache" / "audit" / "bin"
LOCKS = [ROOT / "requirements" / f"{name}.txt" for name in ("run", "build", "demo", "dev")]


def pinned(lock: Path) -> dict[str, set[str]]:
    """The hashes of each package that a lock pins for Linux, by name==version."""
    text = re.sub(r"\\\n", " ", lock.read_text())
    lines = re.findall(r"^([\w.-]+==\S+)(.*)$", text, re.MULTILINE)
    return {name: set(re.findall(r"sha256:(\w+)", rest)) for name, rest in lines if "== 'win32'" not in rest}


def program(name: str) -> Path:
    found = PROGRAMS / name
    if not found.exists():
        pytest.fail(f"no {found}: run `make .cache/audit/stamp`", pytrace=False)
    return found


@pytest.fixture
def bill(tmp_path: Path) -> dict[str, Any]:
    target = tmp_path / "sbom.json"
    subprocess.run([program("python"), ROOT / "scripts" / "sbom.py", target], check=True, timeout=60)
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def test_the_bill_has_every_package_of_an_installation_with_its_hashes(bill: dict[str, Any]) -> None:
    listed = {
        f"{one['name']}=={one['version']}": {two["content"] for two in one["hashes"]}
        for one in bill["components"]
    }
    assert listed == pinned(LOCKS[0])
    assert bill["metadata"]["component"]["name"] == "healthagent"
    [direct] = bill["dependencies"]
    assert any(purl.startswith("pkg:pypi/aiohttp@") for purl in direct["dependsOn"])


def test_the_bill_names_no_place_from_which_packages_come(bill: dict[str, Any]) -> None:
    del bill["$schema"]
    assert "://" not in json.dumps(bill)


def test_the_audit_would_ask_about_everything_that_is_locked() -> None:
    done = subprocess.run(
        [
            *(program("pip-audit"), "--disable-pip", "--require-hashes", "--dry-run"),
            *("--progress-spinner", "off"),
            *(f"--requirement={lock}" for lock in LOCKS),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"would have audited (\d+) packages", done.stderr)
    assert found is not None, done.stderr
    assert int(found[1]) == len({name for lock in LOCKS for name in pinned(lock)})
