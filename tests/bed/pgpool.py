"""A real pgpool before a real cluster, set up by the file that we ship."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from healthagent.demo.binaries import drop_root, environment, give_to_server
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node, as_conf, until
from healthagent.pgpool.pcp import Endpoint

SHIPPED = Path(__file__).parents[2] / "pgpool"
PASSWORD = "of-the-pcp-user"


def pgpool_program() -> str:
    """The installed pgpool; without one the test fails."""
    found = shutil.which("pgpool", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.fail("no pgpool is installed: run `apt-get install pgpool2` as root", pytrace=False)
    return found


class Pgpool:
    """One pgpool on free ports, its files in `folder`.

    `settings` are added to the shipped file (`shipped`: its name, if not pgpool.conf). It runs as the
    servers' user; with `variables`, which are for its failover script, as ourselves, since only we may
    be able to read this checkout.
    """

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[Node],
        settings: Mapping[str, str | int] | None = None,
        variables: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.folder = folder
        self.nodes = nodes
        self.port = free_port()
        self.pcp_port = free_port()
        self.log_file = log or folder / "pgpool.log"
        self.status_file = folder / "pgpool_status"
        self.password_file = folder / "pcp-password"
        self._settings = dict(settings or {})
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        give_to_server(folder)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(port=self.pcp_port, socket_dir=self.folder, user="pcp", password=PASSWORD)

    def start(self) -> None:
        """Start it and wait until it answers; what it knew of its backends is kept."""
        self._write_files()
        command = [*(() if self._variables else drop_root()), pgpool_program(), "-n"]
        for flag, name in (("-f", "pgpool.conf"), ("-F", "pcp.conf"), ("-a", "pool_hba.conf")):
            command += [flag, str(self.folder / name)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(self.nodes[0].binaries.client) | self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        began = self.log_file.stat().st_size
        until(lambda: self._started(began), 15.0, f"pgpool is started:\n{self.log_tail()}")

    def stop(self) -> None:
        """Fast shutdown, which removes its shared memory, after a failover under way; idempotent."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def sql(self, sql: str, timeout: float = 5.0) -> "subprocess.CompletedProcess[str]":
        """Run SQL through pgpool on a new connection."""
        binaries = self.nodes[0].binaries
        conninfo = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres connect_timeout=3"
        command = [str(binaries.client / "psql"), "-XAtq", "-d", conninfo, "-c", sql]
        try:
            return subprocess.run(
                command,
                env=environment(binaries.client),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", "no answer")

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def _started(self, began: int) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"pgpool did not start:\n{self.log_tail()}", pytrace=False)
        with self.log_file.open("rb") as log:
            log.seek(began)
            return b"successfully started" in log.read()

    def _write_files(self) -> None:
        settings: dict[str, str | int] = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "socket_dir": str(self.folder),
            "pid_file_name": str(self.folder / "pgpool.pid"),
            "logdir": str(self.folder),
            "pcp_port": self.pcp_port,
            "pcp_socket_dir": str(self.folder),
            "wd_ipc_socket_dir": str(self.folder),
            "num_init_children": 6,
            "health_check_user": "postgres",
            "sr_check_user": "postgres",
            "pool_passwd": "",
        }
        for index, node in enumerate(self.nodes):
            settings |= {f"backend_hostname{index}": node.host, f"backend_port{index}": node.port}
        changed = dict(self._settings)
        shipped = (SHIPPED / str(changed.pop("shipped", "pgpool.conf"))).read_text()
        surplus = "".join(rf"|^backend_\w+{index} = .*$" for index in range(len(self.nodes), 3))
        shipped = re.sub(rf"^$^{surplus}", "", shipped, flags=re.MULTILINE)
        digest = hashlib.md5(PASSWORD.encode(), usedforsecurity=False).hexdigest()
        self._write("pgpool.conf", shipped + as_conf(settings | changed))
        self._write("pcp.conf", f"pcp:{digest}\n")
        self._write("pool_hba.conf", "host all all 127.0.0.1/32 trust\n")
        self._write("pcp-password", PASSWORD)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        give_to_server(path)
