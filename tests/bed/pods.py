"""The pods of kubernetes/base as processes of this machine, with other paths and addresses.

    with Pods(binaries) as pods:
        pods[0].prepare(); pods[0].start()

Each pod has an address of its own on loopback, 127.0.0.1 to 127.0.0.3, and its volumes below a folder.
The commands, scripts, settings and variables are those of the rendered manifests.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from signal import SIGQUIT
from typing import Self

from healthagent.demo.binaries import Binaries, drop_root, give_to_server
from healthagent.demo.binaries import environment as postgres_environment
from healthagent.demo.ports import free_port
from healthagent.demo.processes import end_servers
from tests.bed.agent import Agent
from tests.bed.command import HEALTHAGENT
from tests.bed.manifests import Manifest, containers, environment, found, one

SECRETS = {
    "replication-password": "a:b\\c'd",
    "password": 'it\'s a "secret"',
    "peer-secret": "0123456789abcdef0",
}
LIMIT = 60.0  # seconds for one step on a busy machine


class Pod:
    """One pod; `agent` asks its agent."""

    def __init__(self, pods: "Pods", number: int) -> None:
        self.pods = pods
        self.name = f"pg-{number}"
        self.host = pods.hosts[number]
        self.folder = pods.folder / self.name
        self.data = self.folder / "data"
        self.agent = Agent(self.folder, name=self.name)
        self.agent.host, self.agent.port = self.host, pods.agent_port
        self.log = self.folder / "postgresql.log"
        self._spec: Manifest = one("base", "StatefulSet", "pg")["spec"]["template"]["spec"]
        self._postgres: subprocess.Popen[bytes] | None = None
        self.paths = {
            "/var/lib/postgresql/data": self.data,
            "/var/lib/healthagent": self.folder / "state",
            "/run/postgresql": self.folder / "run",
            "/etc/postgresql-secret": pods.folder / "secrets",
            "/etc/healthagent-secret": pods.folder / "secrets",
            "/etc/postgresql": self.folder / "etc",
            "/etc/healthagent": self.folder / "etc",
        }
        for path in (self.folder, *self.paths.values()):
            path.mkdir(parents=True, exist_ok=True)
            give_to_server(path)
        for name in ("postgresql", "healthagent"):
            [config] = [
                each for each in found("base", "ConfigMap") if each["metadata"]["name"].startswith(name)
            ]
            for file, text in config["data"].items():
                (self.folder / "etc" / file).write_text(self._here(text))

    def preparing(self, **variables: str) -> "subprocess.Popen[str]":
        """Run what fills the volume; its output is a pipe. It may wait for ever."""
        container = self._container("prepare-data")
        [interpreter, script] = container["command"]
        return subprocess.Popen(
            [*drop_root(), interpreter, self._here(script)],
            env=self._environment(container) | {"AGAIN_AFTER": "0.1"} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def prepare(self, **variables: str) -> str:
        """Fill the volume; what was said."""
        with self.preparing(**variables) as process:
            try:
                said, _ = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 0, said
        return said

    def start(self) -> None:
        """Start PostgreSQL and its agent; neither is waited for."""
        container = self._container("postgres")
        [program, *arguments] = [self._here(word) for word in container["command"]]
        own = {"port": self.pods.port, "listen_addresses": self.host, "fsync": "off"}
        own |= {"cluster_name": f"{self.pods.folder.name}/{self.name}"}  # so that it is found and ended
        arguments += [word for key, value in own.items() for word in ("-c", f"{key}={value}")]
        with self.log.open("ab") as log:
            self._postgres = subprocess.Popen(
                [*drop_root(), self.pods.binaries.program(program), *arguments],
                env=self._environment(container),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.agent.folder.mkdir(parents=True, exist_ok=True)
        container = self._container("healthagent")
        with self.agent.log_file.open("ab") as log:
            process = subprocess.Popen(
                [*HEALTHAGENT, *map(self._here, container["args"])],
                env=self._environment(container)
                | {
                    "HEALTHAGENT_LISTEN": f"{self.host}:{self.pods.agent_port}",
                    "HEALTHAGENT_STATE_DIR": str(self.folder / "state"),
                    "HEALTHAGENT_POSTGRES_ADDRESS": f"{self.host}:{self.pods.port}",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.agent.adopt(process)

    def kill(self) -> None:
        """The machine is gone: both end at once."""
        self.agent.kill()
        if self._postgres is not None and self._postgres.poll() is None:
            self._postgres.send_signal(SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._postgres.wait(20)
        end_servers(self.pods.folder, self.name)

    def lose_volume(self) -> None:
        shutil.rmtree(self.data)
        self.data.mkdir()
        give_to_server(self.data)

    def psql(self, sql: str) -> str:
        """As `kubectl exec -c postgres -- psql` would."""
        command = ["psql", "-XAt", "-h", str(self.folder / "run"), "-U", "postgres", "-c", sql, "postgres"]
        variables = self._environment(self._container("postgres"))
        done = subprocess.run(
            [*drop_root(), *command],
            env=variables,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _container(self, name: str) -> Manifest:
        [container] = [each for each in containers(self._spec) if each["name"] == name]
        return container

    def _environment(self, container: Manifest) -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("HEALTHAGENT_", "PG"))}
        variables = environment(container, name=self.name, uid="a-uid")
        bins = f"{self.pods.binaries.bin}:{self.pods.binaries.client}:{os.environ['PATH']}"
        given = {name: self._here(value) for name, value in variables.items()}
        return (
            ours
            | postgres_environment(self.pods.binaries.bin)
            | given
            | {"PATH": bins, "PGPORT": str(self.pods.port)}
        )

    def _here(self, text: str) -> str:
        """What stands in a manifest, with the paths and addresses of this machine."""
        for path, here in sorted(self.paths.items(), key=lambda item: -len(item[0])):
            text = text.replace(path, str(here))
        for number, host in enumerate(self.pods.hosts):
            text = text.replace(f"pg-{number}.pg-nodes:8008", f"{host}:{self.pods.agent_port}")
            text = text.replace(f"pg-{number}.pg-nodes", host)
        return text


class Pods:
    """All pods of the StatefulSet; a context manager that leaves nothing behind."""

    def __init__(self, binaries: Binaries) -> None:
        self.binaries = binaries
        self.port, self.agent_port = free_port(), free_port()
        self.hosts = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
        # not pytest's folder, which only root may enter
        self.folder = Path(tempfile.mkdtemp(prefix="ha-pods-"))
        self.folder.chmod(0o755)
        secrets = self.folder / "secrets"
        secrets.mkdir()
        for name, text in SECRETS.items():
            (secrets / name).write_text(text)
        self.all = [Pod(self, number) for number in range(len(self.hosts))]

    def __getitem__(self, number: int) -> Pod:
        return self.all[number]

    def __iter__(self) -> Iterator[Pod]:
        return iter(self.all)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for pod in self.all:
            pod.kill()
        shutil.rmtree(self.folder)
