"""One `healthagent run` beside each node of the demo, and what it answers."""

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from healthagent.demo import background
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node, until

HOST = "127.0.0.1"
PATIENCE = 2.0  # seconds for one answer, which takes 1 ms
STARTED_WITHIN = 60.0  # seconds; it takes one, or ten on a busy machine


class AgentFailed(RuntimeError):
    """An agent did not start; the message holds the end of its log."""


@dataclass(frozen=True)
class Answer:
    """What an agent says on one path: a status code (0: no answer), and why."""

    code: int
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code or 'none'} {self.reason}: {self.detail}"


class Line:
    """A kept-alive connection to one agent; opened anew after a failure."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)

    def ask(self, path: str) -> Answer:
        """Ask one check; code 0 when the agent cannot be reached."""
        try:
            self._connection.request("GET", path)
            reply = self._connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(0, "unreachable", str(error) or type(error).__name__)
        verdict = json.loads(body)["verdict"]
        return Answer(reply.status, verdict["reason"], verdict["detail"])

    def close(self) -> None:
        self._connection.close()


class Agent:
    """One agent process, its files below `folder`/NAME."""

    def __init__(self, folder: Path, node: Node) -> None:
        self.node = node
        self.name = node.name
        self.port = free_port()
        self.check_port = free_port()
        self.folder = folder / node.name
        self.config = self.folder / "healthagent.yaml"
        self.log = self.folder / "healthagent.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def configure(self, agents: Sequence["Agent"]) -> None:
        """Write its configuration, as a user would; all the other `agents` are its peers."""
        self.folder.mkdir(parents=True)
        settings: Mapping[str, object] = {
            "name": self.name,
            "cluster": "demo",
            "listen": f"{HOST}:{self.port}",
            "state_dir": str(self.folder / "state"),
            "postgres": {"dsn": self.node.dsn()},
            "agent_check": {"listen": f"{HOST}:{self.check_port}"},
            "peers": [
                {"name": other.name, "url": other.url, "postgres": f"{HOST}:{other.node.port}"}
                for other in agents
                if other is not self
            ],
        }
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False))

    def start(self) -> None:
        """Start it; `wait_answering` waits for it."""
        command = [sys.executable, "-m", "healthagent", "run", "-c", str(self.config)]
        self.process = background.start(command, self.log)

    def wait_answering(self) -> None:
        """Wait until it answers; AgentFailed, with the end of its log, if it does not."""
        process = self.process
        assert process is not None, f"the agent of {self.name} was not started"

        def answers() -> bool:
            if process.poll() is not None:
                raise AgentFailed(f"the agent of {self.name} did not start:\n{background.tail(self.log)}")
            return self.ask("/health").code != 0

        try:
            until(answers, STARTED_WITHIN, f"the agent of {self.name} answers")
        except TimeoutError as error:
            raise AgentFailed(f"{error}:\n{background.tail(self.log)}") from None

    def ask(self, path: str) -> Answer:
        """Ask one check, over a connection of its own."""
        line = Line(self.port)
        try:
            return line.ask(path)
        finally:
            line.close()
