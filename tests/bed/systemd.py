"""systemd itself as the first process of namespaces of its own, to run our units as they are.

    with Systemd(tmp_path, units=[ROOT / "systemd/healthagent.service"]) as systemd:
        systemd.write("/etc/healthagent.yaml", ...)
        systemd.drop_in("healthagent.service", "[Service]\\nWatchdogSec=2")
        systemd.ctl("start", "healthagent")

What it and its services write to /etc, /opt, /run, /usr/local and /var/lib is in memory and gone with it. The
network is that of the machine. Our program is at /opt/healthagent/bin/healthagent in there, and the user
healthagent exists. Needs root.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from healthagent.demo.background import end, start, tail
from healthagent.demo.postgres import until

ROOT = Path(__file__).parents[2]
INSTALL = "apt-get install -y --no-install-recommends systemd util-linux"
SYSTEMD = Path("/lib/systemd/systemd")
USER = "daemon"  # the machine's user whose number ours has there: so PostgreSQL on the machine knows it
BOOTED_WITHIN = 30.0  # seconds
_runs = count(1)  # of this process

# Run in a new mount namespace. The control group of this run is the root of those that systemd sees.
OUTSIDE = """
set -eu
mount --make-rprivate /
mount -t cgroup2 none "$FOLDER"
mkdir "$FOLDER/$GROUP"
echo 0 > "$FOLDER/$GROUP/cgroup.procs"
umount "$FOLDER"
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup --mount-proc sh -euc "$INSIDE"
"""
INSIDE = """
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none "$FOLDER"
cd "$FOLDER"
mkdir python checkout packages
mount --bind "$PYTHON" python
mount --bind "$CHECKOUT" checkout
mount --bind "$PACKAGES" packages
cp -L /etc/resolv.conf /etc/hosts .  # in a container these are mounts, which a layer above does not show
for place in etc opt usr/local; do
    mkdir -p "upper/$place" "work/$place"
    layers="lowerdir=/$place,upperdir=$FOLDER/upper/$place,workdir=$FOLDER/work/$place"
    mount -t overlay overlay -o "$layers" "/$place"
done
rm -f /etc/resolv.conf
cp resolv.conf hosts /etc
mkdir -p /etc/systemd/system
for place in /etc/systemd/system /run /var/lib; do mount -t tmpfs none "$place"; done
rm -rf /opt/healthagent
mkdir -p /opt/healthagent/bin /run/systemd/units-of-the-test
for place in python checkout packages; do
    mkdir "/run/$place"
    mount --move "$place" "/run/$place"
done
program=/opt/healthagent/bin/healthagent
{
    echo '#!/bin/sh'
    echo 'export LD_LIBRARY_PATH=/run/python/lib PYTHONPATH=/run/checkout:/run/packages'
    echo "exec /run/python/$PROGRAM -m healthagent" '"$@"'
} > $program
chmod 755 $program
echo "healthagent:x:$(id -u "$OWNER"):$(id -g "$OWNER")::/nonexistent:/usr/sbin/nologin" >> /etc/passwd
echo "healthagent:x:$(id -g "$OWNER"):" >> /etc/group
export SYSTEMD_UNIT_PATH=/run/systemd/units-of-the-test:/etc/systemd/system container=other
cd /
exec "$SYSTEMD" --system --unit=basic.target --log-target=console --log-level=info --show-status=no
"""
# Control groups outlive what ran in them.
SWEEP = """
mount --make-rprivate /
mount -t cgroup2 none "$0"
[ ! -d "$0/$1" ] || find "$0/$1" -depth -type d -exec rmdir {} +
"""
EMPTY = "[Unit]\nDefaultDependencies=no\n"
TARGETS = ("basic.target", "sysinit.target", "shutdown.target", "network-online.target")


def missing() -> str | None:
    """What keeps this machine from running systemd so, with the cure; None when nothing does."""
    absent = [program for program in ("systemctl", "nsenter", "unshare") if shutil.which(program) is None]
    if absent or not SYSTEMD.exists():
        return f"no {', '.join(absent) or SYSTEMD}: run `{INSTALL}`"
    return None if os.geteuid() == 0 else "systemd in a namespace needs root: run the tests as root"


class Systemd:
    """One systemd; a context manager. `units` are copied as they are."""

    def __init__(self, folder: Path, units: Iterable[Path]) -> None:
        self.folder = folder
        self.log_file = folder / "systemd.log"
        self._private = folder / "private"
        self._units = list(units)
        self._group = f"healthagent-test-{os.getpid()}-{next(_runs)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._first = 0  # the process that is number 1 in there

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End systemd and all that it runs; idempotent."""
        if self._process is not None:
            end([self._process])
            self._process = None
            sweep = ["unshare", "--mount", "sh", "-euc", SWEEP, str(self._private), self._group]
            until(
                lambda: subprocess.run(sweep, capture_output=True, check=False).returncode == 0,
                BOOTED_WITHIN,
                "everything in its control group has ended",
            )

    def path(self, inside: str) -> Path:
        """A file in there, for us."""
        return Path(f"/proc/{self._first}/root{inside}")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def drop_in(self, unit: str, text: str) -> None:
        """Replace what is added to a unit, and let systemd read it."""
        self.write(f"/run/systemd/units-of-the-test/{unit}.d/test.conf", text)
        self.ctl("daemon-reload")

    def ctl(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """systemctl; with `check` a failure is an AssertionError with what it said and the log's end."""
        done = self.run("systemctl", *arguments)
        if check:
            assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{tail(self.log_file)}"
        return done

    def run(self, *command: str, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run a command in there, as root."""
        inside = ["nsenter", "-t", str(self._first), "--mount", "--pid", "--cgroup", "--ipc", "--uts"]
        return subprocess.run(
            [*inside, *command], capture_output=True, text=True, timeout=timeout, check=False
        )

    def show(self, unit: str, *properties: str) -> Mapping[str, str]:
        """Properties of a unit, as `systemctl show` names them."""
        wanted = [word for name in properties for word in ("-p", name)]
        lines = self.ctl("show", unit, *wanted).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def status_of(self, unit: str) -> Mapping[str, str]:
        """What the kernel says of a unit's main process (/proc/PID/status)."""
        pid = self.show(unit, "MainPID")["MainPID"]
        lines = self.path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def _boot(self) -> None:
        assert self._process is None
        self._private.mkdir()
        variables = {
            **{"INSIDE": INSIDE, "GROUP": self._group, "FOLDER": str(self._private), "CHECKOUT": str(ROOT)},
            **{"PYTHON": sys.base_prefix, "PROGRAM": f"bin/{Path(os.path.realpath(sys.executable)).name}"},
            **{"PACKAGES": next(p for p in sys.path if p.endswith("site-packages")), "OWNER": USER},
            **{"SYSTEMD": str(SYSTEMD)},
        }
        given = [f"{name}={value}" for name, value in variables.items()]
        self._process = start(
            ["env", *given, "unshare", "--mount", "sh", "-euc", OUTSIDE],
            self.log_file,
        )
        until(self._is_first_there, BOOTED_WITHIN, "systemd is started")
        units = "/run/systemd/units-of-the-test"
        for target in TARGETS:
            self.write(f"{units}/{target}", EMPTY)
        for unit in self._units:
            self.write(f"{units}/{unit.name}", unit.read_text())
        until(lambda: self.run("systemctl", "daemon-reload").returncode == 0, BOOTED_WITHIN, "it answers")

    def _is_first_there(self) -> bool:
        """Whether the child of the inner unshare has become systemd."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"systemd was not started:\n{tail(self.log_file)}")
        for pid in _children(self._process.pid):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a command of the script, and over
            if name == "systemd":
                self._first = pid
                return True
        return False


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
