"""A cluster, its agents, a pgpool and `healthagent pgpool-sync` between them, all real programs."""

import re
import subprocess
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from healthagent.demo.cluster import Cluster
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node, until
from tests.bed.command import HEALTHAGENT, healthagent
from tests.bed.pgpool import SHIPPED, Pgpool
from tests.bed.stand_in_agent import StandInAgent

INSERT = "INSERT INTO log (port) SELECT inet_server_port()"
SETUP = 60.0  # seconds: for what is no claim, on a machine that does other things too


class Bed:
    """One of each kind, and what a test asks of them; all end with `stack`."""

    def __init__(self, cluster: Cluster, folder: Path, stack: ExitStack) -> None:
        self.cluster = cluster
        self.nodes = cluster.nodes
        self.folder = folder
        self.stack = stack
        self.agents: dict[str, str] = {}  # name to base URL
        self.stand_ins: dict[str, StandInAgent] = {}
        self.running_agents: dict[str, ExitStack] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.listen = f"127.0.0.1:{free_port()}"
        self.nodes[0].psql("CREATE TABLE log (port int, at timestamptz DEFAULT clock_timestamp())")

    def start_agents(self) -> None:
        """The real ones, each knowing the others; returns when the primary answers 200."""
        self.agents = {node.name: f"http://127.0.0.1:{free_port()}" for node in self.nodes}
        for node in self.nodes:
            self.start_agent(node)
        primary = self.agents[self.nodes[0].name]
        until(lambda: get(f"{primary}/primary")[0] == 200, SETUP, "the primary's agent answers 200")

    def start_agent(self, node: Node) -> None:
        peers = [f"--peer={name}={url}" for name, url in self.agents.items() if name != node.name]
        listen = self.agents[node.name].removeprefix("http://")
        log = self.folder / f"agent-{node.name}.log"
        stack = self.stack.enter_context(ExitStack())
        options = ("--name", node.name, "--dsn", node.dsn(), "--listen", listen, *peers)
        state = str(self.folder / node.name)
        agent = stack.enter_context(healthagent(log, "run", *options, HEALTHAGENT_STATE_DIR=state))
        self.processes.append(agent)
        self.running_agents[node.name] = stack

    def start_stand_ins(self) -> None:
        for node in self.nodes:
            self.stand_ins[node.name] = self.stack.enter_context(StandInAgent(node))
            self.agents[node.name] = self.stand_ins[node.name].url

    def start_pgpool(self, **settings: str | int) -> None:
        log = self.folder / "pgpool.log"  # pytest keeps it after a failure
        self.pgpool = Pgpool(self.cluster.root / "pgpool", self.nodes, settings, log=log)
        self.stack.enter_context(self.pgpool)

    def start_pgpool_that_promotes(self, **settings: str | int) -> None:
        """With the shipped failover script, which runs this checkout's healthagent."""
        wrapper = self.folder / "healthagent"
        wrapper.write_text(f'#!/bin/sh\nexec {" ".join(HEALTHAGENT)} "$@"\n')
        wrapper.chmod(0o755)
        variables = {
            "HEALTHAGENT": str(wrapper),
            "HEALTHAGENT_AGENTS": " ".join(self.agents.values()),
            "PYTHONPATH": str(SHIPPED.parent),
            "PGUSER": "postgres",
        }
        command = f"{SHIPPED / 'failover.sh'} %d %P %m %H %r"
        settings |= {"failover_command": command}
        log = self.folder / "pgpool.log"
        self.pgpool = Pgpool(self.cluster.root / "pgpool", self.nodes, settings, variables, log)
        self.stack.enter_context(self.pgpool)

    def start_bridge(self, *more: str) -> None:
        """Returns when it has looked for the first time."""
        self.log = self.folder / "bridge.log"
        bridge = self.stack.enter_context(healthagent(self.log, "pgpool-sync", *self.options(), *more))
        self.processes.append(bridge)
        until(lambda: "polls_total" in self.metrics(), SETUP, "the bridge has started")
        until(lambda: self.metric("healthagent_pgpool_polls_total") >= 1, SETUP, "the bridge has looked")

    def options(self) -> list[str]:
        """The command line of the bridge."""
        agents = [f"--agent={name}={url}" for name, url in self.agents.items()]
        backends = [f"--backend={node.name}={index}" for index, node in enumerate(self.nodes)]
        return [
            *agents,
            *backends,
            f"--pcp-socket-dir={self.pgpool.folder}",
            f"--pcp-port={self.pgpool.pcp_port}",
            f"--pcp-password-file={self.pgpool.password_file}",
            f"--listen={self.listen}",
        ]

    def metrics(self) -> str:
        return get(f"http://{self.listen}/metrics")[1]

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def backends(self, status: str) -> int:
        """How many pgpool had in this status at the last look."""
        return self.metrics().count(f'status="{status}"}} 1.0')

    def actions(self) -> dict[str, int]:
        """What pgpool was told to do, so far."""
        name = 'healthagent_pgpool_actions_total{{action="{}"}}'
        counts = {kind: int(self.metric(name.format(kind))) for kind in ("detach", "attach", "promote")}
        return {kind: count for kind, count in counts.items() if count}

    def ready(self) -> bool:
        return get(f"http://{self.listen}/ready")[0] == 200

    def writes(self) -> bool:
        return self.pgpool.sql(INSERT).returncode == 0

    def reads(self) -> bool:
        return self.pgpool.sql("SELECT count(*) FROM log").returncode == 0

    def rows(self, node: Node) -> int:
        """Rows that were written to this node while it was primary."""
        [(count,)] = node.psql(f"SELECT count(*) FROM log WHERE port = {node.port}")
        return int(count)

    def stop(self) -> None:
        """Tell all of ours to stop, so that they do so at the same time."""
        for process in self.processes:
            process.terminate()

    def tail(self) -> str:
        return self.log.read_text()[-4000:]


def get(url: str) -> tuple[int, str]:
    """Status and body; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
