"""A real agent: `healthagent run` as a process of its own, beside a node of the bed.

    with Agent(tmp_path, postgres) as agent:                 # waits until it answers
        status, headers, body = agent.get("/primary")
        agent.wait_for("/primary", 200)

    with agents_beside(tmp_path, cluster.nodes) as (one, two, three): ...   # each other's peers

Everything here blocks; from asyncio call it through `asyncio.to_thread`.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node, until
from tests.bed.command import HEALTHAGENT

POLL = 0.02
STARTED_WITHIN = 60.0  # seconds; imports alone take one, and eight on a machine that is busy with other tests
# variables of whoever runs the tests must not decide them
OURS = ("HEALTHAGENT_", "PG", "NOTIFY_", "WATCHDOG_")


class Reply(NamedTuple):
    """An answer; `json` is the text itself where it is no JSON."""

    status: int
    headers: http.client.HTTPMessage
    json: Any

    @property
    def reason(self) -> str | None:
        return self.headers["X-Healthagent-Reason"]


class AgentFailed(Exception):
    """The agent exited; the text has its log."""


class Agent:
    """One agent on a free port of `node.host`, its files below `folder`/NAME; a context manager.

    `settings` are those of the configuration file, a dictionary for a section; they come before the
    defaults here and may be changed between `stop` and `start`, or followed by `reload`. `flags` and
    `environment` come before them. Without a node it is a witness, or has a dsn in its settings.
    With `agent_check` it answers HAProxy's agent-check on `check_port`.
    """

    def __init__(
        self,
        folder: Path,
        node: Node | None = None,
        *,
        name: str | None = None,
        peers: Mapping[str, str] | None = None,
        settings: Mapping[str, object] | None = None,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        agent_check: bool = False,
        program: Sequence[str] = HEALTHAGENT,
    ) -> None:
        self.name = name or (node.name if node else "agent")
        self.host = node.host if node else "127.0.0.1"
        self.port = free_port()
        self.check_port = free_port() if agent_check else None
        self.folder = folder / self.name
        self.state_dir = self.folder / "state"
        self.log_file = self.folder / "agent.log"
        self.config = self.folder / "agent.yaml"
        self.program = program
        self.flags = list(flags)
        self.environment = dict(environment or {})
        self.settings: dict[str, object] = {
            "name": self.name,
            "listen": f"{self.host}:{self.port}",
            "state_dir": str(self.state_dir),
            **({"postgres": {"dsn": node.dsn()}} if node else {}),
            **({"agent_check": {"listen": f"{self.host}:{self.check_port}"}} if agent_check else {}),
        }
        if peers:
            self.settings["peers"] = [{"name": peer, "url": url} for peer, url in peers.items()]
        self.change(settings or {})
        self._prefix = node.place.prefix if node else ()
        self._process: subprocess.Popen[bytes] | None = None
        self._replaced: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def change(self, settings: Mapping[str, object]) -> None:
        """Set keys for the next start or reload; the keys of a section are merged, None sets null."""
        for key, value in settings.items():
            old = self.settings.get(key)
            self.settings[key] = (
                {**old, **value} if isinstance(old, dict) and isinstance(value, Mapping) else value
            )

    # Start and stop.

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it answers (wait=False: return at once). AgentFailed when it exits."""
        self._process = self._spawned()
        if wait:
            self.wait_answering()

    def replace(self, *, wait: bool = True) -> "subprocess.Popen[bytes]":
        """Start a successor with --replace; it is this agent from then on. Returns the old process.

        Waits until that has ended (wait=False: returns at once); AgentFailed when the successor does instead.
        """
        old, self._process = self._process, self._spawned("--replace")
        assert old is not None, f"{self.name} was not started"
        self._replaced.append(old)
        if wait:
            until(lambda: old.poll() is not None or not self.is_running(), STARTED_WITHIN, "a replacement")
            if not self.is_running():
                raise AgentFailed(f"{self.name}: the successor exited with {self.wait()}:\n{self.log()}")
        return old

    def _spawned(self, *flags: str) -> "subprocess.Popen[bytes]":
        self._write_config()
        ours = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [*self._prefix, *self.program, "run", "-c", str(self.config), *self.flags, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ours | self.environment,
            )

    def adopt(self, process: "subprocess.Popen[bytes]") -> None:
        """Take a process that was started otherwise for this agent: it is waited for and killed."""
        self._process = process

    def wait_answering(self) -> None:
        """Wait until a started agent answers; AgentFailed when it exits instead."""
        until(self._answers, STARTED_WITHIN, f"{self.name} answers")

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, and wait for the end; returns the exit code. subprocess.TimeoutExpired if it stays."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL it, and those that it was to replace; idempotent."""
        for old in self._replaced:
            old.kill()
            old.wait()
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        return self._process.wait(timeout) if self._process is not None else 0

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def reload(self, **settings: object) -> None:
        """Change the file and send SIGHUP; the agent takes it in a moment later."""
        self.change(settings)
        self._write_config()
        self.signal(signal.SIGHUP)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; none if it has ended."""
        if self.is_running():
            os.kill(self.pid, number)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # Questions.

    def get(self, path: str, method: str = "GET", timeout: float = 5.0, **headers: str) -> Reply:
        """Ask on a connection of its own. OSError when nobody answers; `a_b="c"` is the header a-b."""
        return self.post(path, None, method=method, timeout=timeout, **headers)

    def post(
        self, path: str, body: object, method: str = "POST", timeout: float = 5.0, **headers: str
    ) -> Reply:
        """Send a JSON body; as `get` otherwise."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        payload = None
        if body is not None:
            payload = json.dumps(body)
            sent = {"Content-Type": "application/json", **sent}
        try:
            connection.request(method, path, payload, sent)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        try:
            return Reply(response.status, response.headers, json.loads(text))
        except ValueError:
            return Reply(response.status, response.headers, text)

    def agent_check(self, kind: str) -> str:
        """Ask as HAProxy's agent-check: all that is said before it hangs up."""
        assert self.check_port is not None, f"{self.name} has no agent-check"
        with socket.create_connection((self.host, self.check_port), 5) as client:
            client.sendall(f"{kind}\n".encode())
            said = b"".join(iter(lambda: client.recv(4096), b""))
        return said.decode()

    def status(self) -> dict[str, Any]:
        """What /status says."""
        found = self.get("/status").json
        assert isinstance(found, dict)
        return found

    def wait_for(self, path: str, status: int, reason: str | None = None, timeout: float = 15.0) -> Reply:
        """Wait for this status, and this reason if one is named; TimeoutError says what came instead."""
        deadline = time.monotonic() + timeout
        while True:
            last = self.get(path)
            if last.status == status and reason in (None, last.reason):
                return last
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.name}{path}: waited {timeout:g} s for {status} {reason or ''}, "
                    f"it says {last.status} {last.reason}\n{self.log()}"
                )
            time.sleep(POLL)

    def log(self) -> str:
        """What it has written so far, all its starts together."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        if not self.is_running():
            raise AgentFailed(f"{self.name} exited with {self.wait()}:\n{self.log()}")
        try:
            return self.get("/liveness").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def _write_config(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(json.dumps(self.settings, indent=1))  # JSON is YAML
        self.config.chmod(0o600)


@contextmanager
def agents_beside(
    folder: Path, nodes: Sequence[Node], settings: Mapping[str, object] | None = None
) -> Iterator[list[Agent]]:
    """One agent beside each node, all peers of one another; settings hold for all."""
    agents = [Agent(folder, node, settings=settings) for node in nodes]
    with together(agents):
        yield agents


@contextmanager
def together(agents: Sequence[Agent]) -> Iterator[None]:
    """Make agents each other's peers, and run them from side by side starts until the end of the block."""
    for agent in agents:
        agent.change(
            {"peers": [{"name": other.name, "url": other.url} for other in agents if other is not agent]}
        )
    with ExitStack() as stack:
        for agent in agents:
            stack.callback(agent.kill)
            agent.start(wait=False)
        for agent in agents:
            agent.wait_answering()
        yield
