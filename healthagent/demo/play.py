"""Everything that the demo needs: found or fetched, started, walked through, and taken away again."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from healthagent.demo import background
from healthagent.demo.agent import Agent, Line
from healthagent.demo.binaries import Binaries, Missing, cache_dir, find_binaries
from healthagent.demo.cluster import Cluster
from healthagent.demo.fetch import DEFAULT_MAJOR, find_or_fetch
from healthagent.demo.processes import server_pids
from healthagent.demo.proxy import INSTALL, Proxy, find_haproxy, version_of
from healthagent.demo.scene import Scene
from healthagent.demo.screen import Screen
from healthagent.demo.walkthrough import walk
from healthagent.demo.watch import Watch
from healthagent.demo.writer import TABLE, Writer

NODES = 3


class CannotStart(RuntimeError):
    """Something that the demo needs cannot be had; the message says how to get it."""


def play(screen: Screen, *, keep: bool) -> None:
    """Start everything, take all steps, and leave nothing behind (keep: but the logs).

    Raises CannotStart, and whatever fails on the way; `screen.differed` has the claims that did not hold.
    """
    binaries = _find_postgres(screen)
    with ExitStack() as stack:
        with screen.progress(f"Starting {NODES} nodes of PostgreSQL {binaries.version}"):
            cluster = stack.enter_context(Cluster(binaries, NODES))
        folder = cluster.root / "agents"
        folder.mkdir()
        screen.write(f"Files are below {cluster.root}")
        if keep:
            stack.callback(_keep_logs, cluster.root, screen)
        scene = stack.enter_context(_scene(screen, cluster, folder))
        walk(scene)
    screen.claim(
        "nothing is left: no process, no file",
        not server_pids(cluster.root) and not cluster.root.exists(),
        f"{cluster.root}, processes {server_pids(cluster.root)}",
    )


def _find_postgres(screen: Screen) -> Binaries:
    found = find_binaries()
    if isinstance(found, Missing):
        with screen.progress(f"No PostgreSQL is installed: fetching {DEFAULT_MAJOR} to {cache_dir()}"):
            found = find_or_fetch()
    if isinstance(found, Missing):
        raise CannotStart(found.problem)
    return found


@contextmanager
def _scene(screen: Screen, cluster: Cluster, folder: Path) -> Iterator[Scene]:
    """Start the agents and HAProxy, and those who look at them."""
    agents = [Agent(folder, node) for node in cluster.nodes]
    program = find_haproxy()
    proxy = Proxy(program, folder, agents) if program else None
    with ExitStack() as stack:
        with screen.progress(f"Starting {len(agents)} agents"):
            for agent in agents:
                agent.configure(agents)
                agent.start()
                stack.callback(_end, agent)
            for agent in agents:
                agent.wait_answering()
        if proxy is None:
            screen.write(f"No HAProxy is installed, so nothing is shown of it: {INSTALL}")
        else:
            with screen.progress(f"Starting HAProxy {version_of(proxy.program)}"):
                stack.callback(_end, proxy)
                proxy.start()
        lines = {agent.name: stack.enter_context(closing(Line(agent.port))) for agent in agents}
        watch = Watch({name: partial(line.ask, "/primary") for name, line in lines.items()})
        stack.enter_context(watch)
        writer = None
        if proxy is not None:
            cluster.nodes[0].psql(TABLE)
            writer = stack.enter_context(Writer(proxy.write_port))
        yield Scene(screen, cluster, agents, watch, proxy, writer)


def _end(program: Agent | Proxy) -> None:
    background.end([program.process] if program.process else [])


def _keep_logs(root: Path, screen: Screen) -> None:
    """Copy configurations and logs to where they stay."""
    kept = Path(tempfile.mkdtemp(prefix="healthagent-demo-"))
    for file in [*root.glob("agents/**/*"), *root.glob("*/postgresql.log")]:
        if file.suffix in (".log", ".yaml", ".cfg"):
            target = kept / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    screen.write(f"Logs and configurations are kept in {kept}")
