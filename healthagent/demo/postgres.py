"""One real PostgreSQL server: start it, break it in every way we care about, ask it questions.

    with Cluster(binaries, nodes=1) as cluster:         # cluster.py
        node = cluster.nodes[0]
        node.psql("SELECT 1")               # [("1",)]
        node.dsn()                          # role healthagent, which has only pg_monitor
        node.freeze(); node.thaw(); node.kill9(); node.start()

Everything here blocks; from asyncio call it through `asyncio.to_thread`.
"""

import csv
import io
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, Signals
from typing import Literal

from healthagent.demo.binaries import (
    Binaries,
    PostgresFailed,
    drop_root,
    environment,
    give_to_server,
    run_program,
)
from healthagent.demo.ports import free_port
from healthagent.demo.processes import POLL, end_servers, remove_shared_memory, send, server_pids

Settings = Mapping[str, str | int]

STOP_SIGNALS = {"smart": SIGTERM, "fast": SIGINT, "immediate": SIGQUIT}


@dataclass(frozen=True)
class Place:
    """Where a node lives, and what is set there only.

    `prefix` is put before each server command, e.g. ("ip", "netns", "exec", "ha-a"); `host` is then an
    address in that namespace. Port 0 stands for a free port of this machine.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    prefix: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)


class Node:
    """One PostgreSQL server below a cluster's folder. Its data directory is filled by the cluster."""

    def __init__(self, binaries: Binaries, root: Path, place: Place) -> None:
        self.binaries = binaries
        self.root = root
        self.place = place
        self.name = place.name
        self.host = place.host
        self.port = place.port or free_port()
        self.data = root / place.name / "data"
        self.socket_dir = root / place.name / "socket"
        self.log_file = root / place.name / "postgresql.log"
        self._settings: dict[str, str | int] = dict(place.settings)
        self._server: subprocess.Popen[bytes] | None = None

    # Start and stop.

    def start(self, *, timeout: float = 30.0, wait: bool = True) -> None:
        """Start the server and wait until it accepts connections (wait=False: return at once).

        Raises PostgresFailed, with the end of its log, if it exits or is not ready within `timeout` seconds.
        """
        if self.is_running():
            raise PostgresFailed(f"{self.name} is already running")
        self._write_settings()
        command = [*self.place.prefix, *drop_root(), self.binaries.program("postgres"), "-D", str(self.data)]
        with self.log_file.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal must not shut the servers down behind our back.
            self._server = subprocess.Popen(
                command,
                env=environment(self.binaries.bin),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.wait_ready(timeout)

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until the server says in its pid file that it accepts connections (what pg_ctl -w does)."""
        server = self._server
        if server is None:
            raise PostgresFailed(f"{self.name} was not started")

        def ready() -> bool:
            if server.poll() is not None:
                raise PostgresFailed(
                    f"{self.name} did not start, exit status {server.returncode}:\n{self.log_tail()}"
                )
            return self._pid_file_says() in {"ready", "standby"}

        try:
            until(ready, timeout, f"{self.name} is ready")
        except TimeoutError as error:
            raise PostgresFailed(f"{error}:\n{self.log_tail()}") from None

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast", timeout: float = 30.0) -> None:
        """Shut the server down as `pg_ctl stop -m mode` does; no error when it is not running."""
        if self._server is None:
            return
        self.thaw()
        if self._server.poll() is None:
            self._server.send_signal(STOP_SIGNALS[mode])
        try:
            self._server.wait(timeout)
        except subprocess.TimeoutExpired:
            raise PostgresFailed(
                f"{self.name} did not stop within {timeout:g} s:\n{self.log_tail()}"
            ) from None
        self._after_end()

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def kill9(self) -> None:
        """SIGKILL the postmaster only; return when its children have noticed and ended.

        Those that have not within 10 s are killed as well.
        """
        if self._server is None:
            return
        self._server.kill()
        self._after_end()

    def close(self) -> None:
        """End every process of this server whatever state it is in; no error, idempotent."""
        end_servers(self.root, self.name)
        if self._server is not None:
            self._server.wait()
            self._server = None

    def freeze(self) -> None:
        """SIGSTOP all its processes: its port still accepts, nothing answers."""
        # The postmaster first, so that it forks no child that we would miss.
        if self._server is not None:
            send([self._server.pid], SIGSTOP)
        send(self.pids(), SIGSTOP)

    def freeze_postmaster(self) -> None:
        """SIGSTOP the postmaster only: open sessions go on, new connections hang."""
        if self._server is not None:
            send([self._server.pid], SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT all its processes."""
        send(self.pids(), SIGCONT)

    def signal(self, number: Signals) -> None:
        """Send a signal to the postmaster."""
        if self._server is not None:
            send([self._server.pid], number)

    def is_running(self) -> bool:
        """Whether the postmaster exists (starting and frozen ones do)."""
        return self._server is not None and self._server.poll() is None

    def pids(self) -> set[int]:
        """All processes of this server, orphans of a killed postmaster included."""
        return server_pids(self.root, self.name)

    # Settings and replication.

    def configure(self, **settings: str | int | None) -> None:
        """Set parameters of this node (None: back to the cluster's) and reload; some need a restart."""
        for key, value in settings.items():
            if value is None:
                self._settings.pop(key, None)
            else:
                self._settings[key] = value
        self._write_settings()
        if self.is_running():
            self.signal(SIGHUP)

    def become_standby_of(self, source: "Node") -> None:
        """Before a start: make the data directory a standby that streams from `source`."""
        signal_file = self.data / "standby.signal"
        signal_file.touch()
        give_to_server(signal_file)
        self.follow(source)

    def follow(self, source: "Node") -> None:
        """Stream from another node from now on: set primary_conninfo and reload (12 needs a restart too)."""
        upstream = f"host={source.host} port={source.port} user=postgres"
        self.configure(primary_conninfo=f"{upstream} application_name={self.name}")

    def promote(self) -> None:
        """Promote a standby and return when it takes writes."""
        if self.psql("SELECT pg_promote(true, 30)") != [("t",)]:
            raise PostgresFailed(f"{self.name} was not promoted within 30 s:\n{self.log_tail()}")

    def rewind(self, source: "Node", *, timeout: float = 30.0) -> None:
        """Stop this node, pg_rewind it to what `source` (a primary) has, and start it as a standby of it."""
        self.stop()
        # pg_rewind reads the timeline from pg_control, which tells of a promotion only after a checkpoint.
        source.psql("CHECKPOINT")
        self.run("pg_rewind", f"--target-pgdata={self.data}", f"--source-server={source._conninfo()}")
        self.become_standby_of(source)  # pg_rewind has copied the source's settings too: write ours again
        self.start(timeout=timeout)

    def followers(self) -> set[str]:
        """The names of the nodes that stream from this one now."""
        return {
            name
            for (name,) in self.psql(
                "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
            )
        }

    def wait_streaming(self, *followers: "Node", timeout: float = 10.0) -> None:
        """Wait until all `followers` stream from this node; TimeoutError after `timeout` seconds."""
        names = {follower.name for follower in followers}
        until(
            lambda: names <= self.followers(), timeout, f"{', '.join(sorted(names))} stream from {self.name}"
        )

    def wait_replayed(self, source: "Node", timeout: float = 10.0) -> None:
        """Wait until this standby has replayed all that `source` (a primary) has written so far."""
        [(lsn,)] = source.psql("SELECT pg_current_wal_insert_lsn()")
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"
        until(lambda: self.psql(replayed) == [("t",)], timeout, f"{self.name} has replayed {lsn}")

    # Questions.

    def dsn(self, user: str = "healthagent", database: str = "postgres", password: str | None = None) -> str:
        """A URL for asyncpg and libpq, over TCP; by default for the role that has only pg_monitor."""
        login = user if password is None else f"{user}:{password}"
        return f"postgresql://{login}@{self.host}:{self.port}/{database}"

    def psql(self, sql: str, *, user: str = "postgres", timeout: float = 40.0) -> list[tuple[str, ...]]:
        """Run SQL over the unix socket (which works into a network namespace too); rows of text, NULL as "".

        Raises PostgresFailed with psql's words, also after `timeout` seconds (a frozen server never answers).
        """
        command = [str(self.binaries.client / "psql"), "-Xqt", "--csv", "-v", "ON_ERROR_STOP=1"]
        command += ["-d", f"{self._conninfo(user)} connect_timeout=10", "-c", sql]
        try:
            ran = subprocess.run(
                command,
                env=environment(self.binaries.client),
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise PostgresFailed(f"{self.name} did not answer {sql!r} within {timeout:g} s") from None
        if ran.returncode != 0:
            raise PostgresFailed(f"{self.name}: {sql!r}: {ran.stderr.strip()}")
        return [tuple(row) for row in csv.reader(io.StringIO(ran.stdout))]

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the server's log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def run(self, program: str, *arguments: str, stdin: str = "", timeout: float = 60.0) -> str:
        """Run a program of this PostgreSQL as the server's user; see run_program."""
        return run_program(self.binaries, self.root, program, *arguments, stdin=stdin, timeout=timeout)

    def _conninfo(self, user: str = "postgres") -> str:
        return f"host={self.socket_dir} port={self.port} user={user} dbname=postgres"

    def _write_settings(self) -> None:
        """Write node.conf, which the template's postgresql.conf includes."""
        settings = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": str(self.socket_dir),
            "cluster_name": f"{self.root.name}/{self.name}",  # in process titles: processes.py looks for it
            **self._settings,
        }
        conf = self.data / "node.conf"
        conf.write_text(as_conf(settings))
        give_to_server(conf)  # pg_rewind opens every file of the target for writing

    def _pid_file_says(self) -> str:
        """Line 8 of postmaster.pid: starting, ready, standby or stopping; "" while this start wrote none."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return ""
        if len(lines) < 8 or self._server is None or lines[0] != str(self._server.pid):
            return ""
        return lines[7].strip()

    def _after_end(self) -> None:
        """Reap the postmaster and wait for its children."""
        if self._server is not None:
            self._server.wait()
            self._server = None
        deadline = time.monotonic() + 10.0
        while left := self.pids():
            if time.monotonic() > deadline:
                send(left, SIGKILL)
            time.sleep(POLL)
        remove_shared_memory(self.data)


def as_conf(settings: Settings) -> str:
    """Spell settings as postgresql.conf does."""
    quoted = {key: str(value).replace("'", "''") for key, value in settings.items()}
    return "".join(f"{key} = '{value}'\n" for key, value in quoted.items())


def until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait until `condition()` holds; TimeoutError, naming `what` was waited for, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain until {what}")
        time.sleep(POLL)
