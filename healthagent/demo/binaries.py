"""Which PostgreSQL programs to run, and as whom."""

import functools
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
OLDEST = 12  # the oldest major version that healthagent supports
INSTALL = "apt-get install -y --no-install-recommends postgresql"


class PostgresFailed(RuntimeError):
    """A PostgreSQL program failed; the message holds what it said."""


@dataclass(frozen=True)
class Binaries:
    """One installed PostgreSQL: the folder of its programs and what it says of itself."""

    bin: Path
    version: str  # "15.18", or "19beta1"
    client: Path  # where psql is; another version's folder when `bin` holds only the server

    @property
    def major(self) -> int:
        """15 for 15.18."""
        return _number(self.version)

    def program(self, name: str) -> str:
        """The full path of one of its programs."""
        return str(self.bin / name)


@dataclass(frozen=True)
class Missing:
    """No usable PostgreSQL: the problem in one sentence, with the command that cures it."""

    problem: str


def find_binaries(major: int | None = None) -> Binaries | Missing:
    """Find PostgreSQL programs of a major version (None: any).

    First the folder named by HEALTHAGENT_DEMO_POSTGRES, which holds initdb and postgres; then the
    system's packages, newest first, since they are what users run; then what was fetched to
    `cache_dir()/<major>/bin`.
    """
    named = named_folder()
    if isinstance(named, Missing):
        return named
    problems: list[str] = []
    candidates = ([named] if named else []) + _candidates()
    client = next((folder for folder in candidates if (folder / "psql").exists()), None)
    for folder in candidates:
        version = ask_version(folder)
        if isinstance(version, Missing):
            problems.append(version.problem)
            continue
        if _number(version) < OLDEST or (major is not None and _number(version) != major):
            continue
        own = folder if (folder / "psql").exists() else client
        if own is None:
            problems.append(f"{folder}: holds no psql, and none is installed")
            continue
        return Binaries(folder, version, own)
    wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    seen = "".join(f"; {problem}" for problem in problems)
    return Missing(f"no {wanted} is installed{seen}: run `{INSTALL}` as root")


def named_folder() -> Path | Missing | None:
    """The folder that HEALTHAGENT_DEMO_POSTGRES names, if it is set."""
    named = os.environ.get("HEALTHAGENT_DEMO_POSTGRES")
    if not named:
        return None
    if not Path(named, "initdb").exists():
        rule = "must be a folder that holds initdb and postgres"
        return Missing(f"HEALTHAGENT_DEMO_POSTGRES: {rule}, got {named!r}")
    return Path(named)


@functools.cache
def ask_version(folder: Path) -> str | Missing:
    """Ask `postgres --version`, as the user that will run it: that proves libraries and rights as well."""
    command = [*drop_root(), str(folder / "postgres"), "--version"]
    try:
        asked = subprocess.run(command, env=environment(folder), capture_output=True, text=True, timeout=30)
    except OSError as error:
        return Missing(f"{folder}: {error}")
    found = re.search(r"\) (\d+[.\w]*)", asked.stdout)
    if asked.returncode != 0 or found is None:
        said = (asked.stderr or asked.stdout).strip().splitlines()
        return Missing(f"{folder}: {said[-1] if said else 'postgres --version said nothing'}")
    return found[1]


def cache_dir() -> Path:
    """Where fetched PostgreSQL sets lie: in the checkout, where the servers' user can reach it."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").exists():
        folder = checkout / ".cache" / "postgresql"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "healthagent" / "postgresql"
    if drop_root() and not _reachable(folder):
        return Path("/var/cache/healthagent/postgresql")
    return folder


def server_owner() -> tuple[int, int] | None:
    """User and group id that servers run as when we are root, which they refuse to be; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return account.pw_uid, account.pw_gid
    return 65534, 65534


def drop_root() -> tuple[str, ...]:
    """The command prefix that runs a server program as `server_owner()`; empty when we are not root.

    A prefix, not subprocess's `user=`: entering a network namespace needs root and comes first.
    """
    owner = server_owner()
    if owner is None:
        return ()
    # Through env: setpriv itself still has root's rights when it looks the program up.
    return ("setpriv", f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups", "--", "env")


def environment(folder: Path) -> dict[str, str]:
    """The environment for programs of `folder`, without the caller's PG* settings.

    A fetched set needs its own lib folder: with the system's libpq the server starts, but its
    walreceiver dies of "invalid connection option" when that libpq is the older one.
    """
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    lib = folder.parent / "lib"
    if any(lib.glob("libpq.so*")):
        keep["LD_LIBRARY_PATH"] = str(lib)
    return keep | {"LC_ALL": "C", "TZ": "UTC"}


def give_to_server(path: Path) -> None:
    """Let the server's user own a file or folder that we made as root."""
    owner = server_owner()
    if owner is not None:
        shutil.chown(path, *owner)


def run_program(
    binaries: Binaries, cwd: Path, program: str, *arguments: str, stdin: str = "", timeout: float = 60.0
) -> str:
    """Run a PostgreSQL program as the server's user; PostgresFailed, with its words, if it fails."""
    command = [*drop_root(), binaries.program(program), *arguments]
    ran = subprocess.run(
        command,
        cwd=cwd,
        env=environment(binaries.bin),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if ran.returncode != 0:
        raise PostgresFailed(f"{program} failed, exit status {ran.returncode}:\n{ran.stdout.strip()}")
    return ran.stdout


def _candidates() -> list[Path]:
    """Folders that hold initdb and postgres on this machine, best first."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: _number(folder.parent.name),
        reverse=True,
    )
    on_path = [Path(found).resolve().parent for found in (shutil.which("postgres"),) if found]
    fetched = sorted(cache_dir().glob("*/bin"), key=lambda folder: _number(folder.parent.name), reverse=True)
    folders = dict.fromkeys(installed + on_path + fetched)
    return [folder for folder in folders if (folder / "initdb").exists()]


def _number(text: str) -> int:
    """The major version that a text begins with; 0 for none."""
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def _reachable(folder: Path) -> bool:
    """Whether other users may search every existing folder on the way to `folder`."""
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents) if parent.exists())
