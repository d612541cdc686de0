"""A PostgreSQL cluster that streams within about a second: initialise once, copy, start.

with Cluster(binaries, nodes=3) as cluster:
    pg1, pg2, pg3 = cluster.nodes       # pg1 is the primary, the others stream from it
    pg1.kill9()
    pg2.promote(); pg3.follow(pg2); pg1.rewind(pg2)
    pg2.wait_streaming(pg1, pg3)
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from healthagent.demo.binaries import Binaries, give_to_server, run_program
from healthagent.demo.postgres import Node, Place, Settings, as_conf
from healthagent.demo.processes import Folder

# Equal on all nodes: a standby refuses to start with fewer connections than its primary had.
SETTINGS: Settings = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",  # in the data directory: nothing is left in /dev/shm after SIGKILL
    "max_connections": 50,
    "max_wal_senders": 10,
    "wal_level": "replica",
    "wal_log_hints": "on",  # pg_rewind needs it
    "wal_retrieve_retry_interval": "200ms",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}


class Template:
    """An initialised data directory, which clusters copy: initdb takes longer than all the rest.

    Clusters of one template share their system identifier; for another one make another template.
    `settings` hold on all nodes. `passwords` makes a role for each name that must log in with
    SCRAM over TCP; everybody else is trusted, on addresses of this machine's own networks.
    """

    def __init__(
        self, binaries: Binaries, settings: Settings | None = None, passwords: Mapping[str, str] | None = None
    ) -> None:
        self.binaries = binaries
        self._folder = Folder()
        self.data = self._folder.path / "data"
        self.data.mkdir(0o700)
        give_to_server(self.data)
        self._initialise({**SETTINGS, **(settings or {})}, passwords or {})

    def _initialise(self, settings: Settings, passwords: Mapping[str, str]) -> None:
        # pg_rewind and late standbys need what was written since the start.
        keep = {"wal_keep_size": "128MB"} if self.binaries.major >= 13 else {"wal_keep_segments": "8"}
        initdb = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        run_program(self.binaries, self.data.parent, "initdb", "-D", str(self.data), *initdb)
        conf = as_conf({**keep, **settings}) + "include_if_exists = 'node.conf'\n"
        (self.data / "postgresql.conf").write_text(conf)
        scram = "".join(f"host all {name} all scram-sha-256\n" for name in passwords)
        (self.data / "pg_hba.conf").write_text(
            f"local all all trust\nlocal replication all trust\n{scram}"
            "host all all samenet trust\nhost replication all samenet trust\n"
        )
        roles = ["CREATE ROLE healthagent LOGIN; GRANT pg_monitor TO healthagent;"]
        roles += [f"{_role(name, 'healthagent')} PASSWORD '{word}';" for name, word in passwords.items()]
        # Single-user mode saves a start and a stop, and records the settings in pg_control as a start would.
        arguments = ("--single", "-D", str(self.data), "-c", "password_encryption=scram-sha-256", "postgres")
        run_program(self.binaries, self.data.parent, "postgres", *arguments, stdin="\n".join(roles) + "\n")

    def copy(self, data: Path) -> None:
        """Make `data` a copy."""
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.data), str(data)], check=True)

    def close(self) -> None:
        """Remove it; idempotent."""
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Cluster:
    """A primary and its streaming standbys; a context manager that leaves no process and no file behind.

    `nodes` is how many (named pg1, pg2, ...) or their places; the first is the primary. `settings` hold on
    every node; those of one node stand in its Place. Entering starts all and waits until they stream.
    A `template` makes it faster; without one, or with `settings`, it makes its own.
    """

    def __init__(
        self,
        binaries: Binaries,
        nodes: int | Sequence[Place] = 3,
        *,
        settings: Settings | None = None,
        template: Template | None = None,
    ) -> None:
        self.binaries = binaries
        self._own_template = Template(binaries, settings) if settings or template is None else None
        self._template = self._own_template or template
        self._folder = Folder()
        self.root = self._folder.path
        places = [Place(f"pg{number + 1}") for number in range(nodes)] if isinstance(nodes, int) else nodes
        self.nodes = [self._lay(place) for place in places]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def start(self) -> None:
        """Start all nodes side by side and wait until every standby streams."""
        primary, *standbys = self.nodes
        for standby in standbys:
            standby.become_standby_of(primary)
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()
        if standbys:
            primary.wait_streaming(*standbys)

    def add_standby(self, source: Node, place: Place | None = None) -> Node:
        """Start one more standby, which streams from `source`."""
        node = self._lay(place or Place(f"pg{len(self.nodes) + 1}"))
        self.nodes.append(node)
        node.become_standby_of(source)
        node.start()
        source.wait_streaming(node)
        return node

    def close(self) -> None:
        """End all processes at once and remove all files; idempotent."""
        self._folder.close()
        for node in self.nodes:
            node.close()
        if self._own_template is not None:
            self._own_template.close()

    def _lay(self, place: Place) -> Node:
        """Make the folders of a node, from the template."""
        node = Node(self.binaries, self.root, place)
        node.socket_dir.mkdir(parents=True)
        give_to_server(node.socket_dir)
        assert self._template is not None
        self._template.copy(node.data)
        return node


def _role(name: str, existing: str) -> str:
    return f"ALTER ROLE {name}" if name == existing else f"CREATE ROLE {name} LOGIN IN ROLE pg_monitor"
