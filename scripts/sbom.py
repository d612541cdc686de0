"""Write what an installation consists of as CycloneDX JSON: the packages that requirements/run.txt pins.

    .cache/audit/bin/python scripts/sbom.py dist/sbom.json

All of it comes from the checkout: nothing is fetched. From where a package is installed is the operator's
choice and so is not in it; its hashes are, one for each of its files. Licences are not: no lock has them.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "run.txt"
VERSION = "1.6"  # of CycloneDX
NO_INDEX = "file:///"  # the tool wants an index to refer to


def from_lock() -> dict[str, Any]:
    """What the tool makes of the lock."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "requirements"),
            *("--pyproject", ROOT / "pyproject.toml", "--spec-version", VERSION, "--of", "JSON"),
            *("--index-url", NO_INDEX, "--output-reproducible", "--no-validate", LOCK),
        ],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr.decode())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tidied(component: dict[str, Any]) -> None:
    """Name a component by what it is instead of a line of the lock; its hashes stay."""
    hashes = [
        one for reference in component.pop("externalReferences", []) for one in reference.get("hashes", [])
    ]
    component.pop("description", None)
    component["hashes"] = hashes
    component["bom-ref"] = component["purl"]


def bill() -> dict[str, Any]:
    document = from_lock()
    purls = {component["name"]: component["purl"] for component in document["components"]}
    for component in document["components"]:
        tidied(component)
    for tool in document["metadata"]["tools"]["components"]:
        tool.pop("externalReferences", None)
    # who needs whom among the packages themselves is in no lock either
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    direct = [purls[re.split(r"[^\w.-]", one)[0]] for one in wanted]
    root = document["metadata"]["component"]["bom-ref"]
    document["dependencies"] = [{"ref": root, "dependsOn": sorted(direct)}]
    return document


def main() -> int:
    text = json.dumps(bill(), indent=1, sort_keys=True) + "\n"
    problem = JsonStrictValidator(SchemaVersion.from_version(VERSION)).validate_str(text)
    if problem is not None:
        print(f"no CycloneDX {VERSION}: {problem}", file=sys.stderr)
        return 1
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
