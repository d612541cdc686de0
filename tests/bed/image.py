"""The container image, built and run without a registry: buildah and podman, over a Debian of debootstrap.

    with Images() as images:
        images.build()
        container = images.run("--read-only", environment={...})

As root, in mount namespaces of their own: nothing stays mounted, and all images are below one folder that is
removed. The base is kept in .cache/, as a tar file; where packages come from is what apt and pip of this
machine are told.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

CHECKOUT = Path(__file__).parents[2]
BASE = "localhost/base:test"
IMAGE = "localhost/healthagent:test"
PROGRAMS = {"buildah": "buildah", "podman": "podman", "crun": "crun", "debootstrap": "debootstrap"}
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
CERTIFICATES = "/etc/ssl/certs"
PIP_SETTINGS = {
    "index-url": "PIP_INDEX_URL",
    "extra-index-url": "PIP_EXTRA_INDEX_URL",
    "trusted-host": "PIP_TRUSTED_HOST",
    "timeout": "PIP_DEFAULT_TIMEOUT",
}
# where cgroups of both versions are mounted podman refuses to run: hide the second, here only
SEPARATE = ("unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh")
# what only prepares takes what the tests beside it leave: those look at time-outs
LOW_PRIORITY = ("nice", "-n", "19")
# what a container may not raise is given to it as it is: there may be no right to set limits here
LIMITS = ("--cgroups=disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=500:500")


def missing() -> str | None:
    """What has to be installed, or that this needs root; None when all is there."""
    absent = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if absent:
        packages = " ".join(absent)
        return f"run as root: apt-get install -y --no-install-recommends {packages}"
    return None if os.geteuid() == 0 else "building and running images needs root: run the tests as root"


class Images:
    """A storage of its own; a context manager that leaves nothing but the base's tar file."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ha-images-"))
        storage = self.folder / "storage.conf"
        roots = {name: self.folder / name for name in ("graphroot", "runroot")}
        lines = ["[storage]", 'driver = "overlay"', *(f'{name} = "{path}"' for name, path in roots.items())]
        storage.write_text("\n".join(lines) + "\n")
        self._environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(storage),
            "TMPDIR": str(self.folder),
        }

    def build(self) -> None:
        """Build IMAGE as users do, with `make image`."""
        self._ran(*LOW_PRIORITY, "podman", "import", str(_base_tar(self.folder)), BASE, timeout=300)
        settings = {"cert": f"{CERTIFICATES}/ca-certificates.crt"} | {
            name: os.environ[variable] for name, variable in PIP_SETTINGS.items() if variable in os.environ
        }
        # a file that is there only while something runs: --env would leave the settings in the image
        config = self.folder / "pip.conf"
        config.write_text("[global]\n" + "".join(f"{name} = {text}\n" for name, text in settings.items()))
        arguments = (
            *("--isolation=chroot", "--network=host", f"--build-arg=BASE_IMAGE={BASE}"),
            *(f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", f"--volume={config}:/etc/pip.conf:ro"),
        )
        make = (
            *LOW_PRIORITY,
            "make",
            "-C",
            str(CHECKOUT),
            "image",
            f"IMAGE={IMAGE}",
            f"ARGS={' '.join(arguments)}",
        )
        self._ran(*make, timeout=600)

    def inspect(self) -> dict[str, Any]:
        """What the image says of itself."""
        [found] = json.loads(self._ran("podman", "image", "inspect", IMAGE))
        assert isinstance(found, dict)
        return found

    def run(self, *options: str, environment: Mapping[str, str] | None = None) -> str:
        """Start a container in the background, on the network of this machine; its id."""
        variables = [
            word for name, value in (environment or {}).items() for word in ("--env", f"{name}={value}")
        ]
        command = ("podman", "run", "--detach", "--network", "host", *LIMITS, *options, *variables, IMAGE)
        return self._ran(*command).strip()

    def shell(self, script: str) -> str:
        """Run a shell script in the image, as root, and return what it prints."""
        options = ("--rm", "--network", "host", *LIMITS, "--user", "0", "--entrypoint", "sh")
        return self._ran("podman", "run", *options, IMAGE, "-c", script)

    def podman(self, *arguments: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run podman whatever comes of it."""
        return self._run("podman", *arguments, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._run("podman", "rm", "--all", "--force", "--volumes", "--time", "0", timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ran(self, *command: str, timeout: float = 120) -> str:
        done = self._run(*command, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def _run(self, *command: str, timeout: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*SEPARATE, *command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def _base_tar(folder: Path) -> Path:
    """A minimal Debian with Python, made once: the release of this machine, from where its packages come."""
    release = _codename()
    tar = CHECKOUT / ".cache" / f"base-{release}.tar"
    if tar.exists():
        return tar
    root = folder / "root"
    command = [
        *LOW_PRIORITY,
        "debootstrap",
        "--variant=minbase",
        f"--include={PACKAGES}",
        release,
        str(root),
        _mirror(release),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"debootstrap: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    tar.parent.mkdir(exist_ok=True)
    whole = tar.with_suffix(".part")
    excluded = ["--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./dev/*"]
    subprocess.run(
        [*LOW_PRIORITY, "tar", "-C", str(root), *excluded, "-cf", str(whole), "."], check=True, timeout=300
    )
    whole.rename(tar)
    shutil.rmtree(root)
    return tar


def _codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    words = dict(line.split("=", 1) for line in lines if "=" in line)
    return words["VERSION_CODENAME"].strip('"')


def _mirror(release: str) -> str:
    """Where apt gets this release from."""
    said = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    for line in said.splitlines():
        uri, _, what = line.partition(" ")
        if what == f"{release} main":
            return uri
    raise AssertionError(f"apt knows no archive of {release}: see /etc/apt/sources.list.d")
