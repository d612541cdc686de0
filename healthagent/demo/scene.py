"""What the steps of the walk-through act on, and how they show it."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from healthagent.core.model import Instant
from healthagent.demo.agent import Agent, Answer
from healthagent.demo.cluster import Cluster
from healthagent.demo.postgres import Node, until
from healthagent.demo.proxy import Proxy
from healthagent.demo.screen import Screen
from healthagent.demo.watch import WITHIN, Watch
from healthagent.demo.writer import Writer

PATHS = ("/primary", "/replica")


@dataclass(frozen=True)
class Scene:
    """A cluster, its agents and those who look at them. `proxy` and `writer`: where there is an HAProxy."""

    screen: Screen
    cluster: Cluster
    agents: Sequence[Agent]
    watch: Watch
    proxy: Proxy | None
    writer: Writer | None

    def agent(self, node: Node) -> Agent:
        """The agent beside a node."""
        return next(agent for agent in self.agents if agent.node is node)

    def list(self, node: Node) -> None:
        """Show `healthagent list`, as the agent beside `node` sees the cluster."""
        words = ["list", "--url", self.agent(node).url]
        command = [sys.executable, "-m", "healthagent", *words]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        self.screen.command(f"healthagent {' '.join(words)}", ran.stdout + ran.stderr)

    def answers(self, path: str) -> None:
        """Show what each agent says on a path, and why."""
        self.screen.write(f"    GET {path}")
        self.screen.show(f"  {agent.name}  {agent.ask(path)}" for agent in self.agents)

    def changes(self, at: Instant) -> None:
        """Show how the answers on /primary have changed since then."""
        self.screen.write("    GET /primary, every change since then")
        self.screen.show(
            f"  {change.at - at:+.3f} s  {change.name}  {change.answer}"
            for change in self.watch.changes
            if change.at >= at
        )

    def said(self) -> str:
        """What all agents say now, for a claim that does not hold."""
        said = (f"{agent.name} {path} {agent.ask(path)}" for agent in self.agents for path in PATHS)
        return "; ".join(said)

    def wait_replica(self, node: Node, reason: str) -> bool:
        """Wait until an agent says 200 on /replica, for this reason; False after a while."""
        agent, condition = self.agent(node), says(200, reason)
        return eventually(lambda: condition(agent.ask("/replica")))

    def undisturbed(self, node: Node, at: Instant) -> None:
        """Claim that an agent has said 200 on /primary at every moment since then."""
        changes = self.watch.since(at, node.name)
        self.screen.claim(
            f"{node.name} was 200 on /primary all the time",
            self.watch.latest[node.name].code == 200 and not changes,
            "; ".join(str(change.answer) for change in changes),
        )


def says(code: int, reason: str) -> Callable[[Answer], bool]:
    """The condition that an answer has this code and reason."""
    return lambda answer: (answer.code, answer.reason) == (code, reason)


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds; False after a while."""
    try:
        until(condition, WITHIN, "")
    except TimeoutError:
        return False
    return True
