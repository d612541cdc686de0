"""Pictures of the status page of a real cluster: `python -m tests.bed.screenshots docs/pictures`.

Three nodes on loopback live through a lagging standby, a failover, the return of the old primary and
a promotion by mistake, `--pace` seconds each; then Chromium looks at the agent of the right primary.
"""

import argparse
import tempfile
import time
from pathlib import Path

from playwright.sync_api import FloatRect

from healthagent.demo.binaries import Missing, find_binaries
from healthagent.demo.cluster import Cluster
from healthagent.demo.postgres import Node
from tests.bed.agent import Agent, agents_beside
from tests.bed.browser import Chromium, browser

WIDE, NARROW = 1280, 400
WRITE = "INSERT INTO written SELECT repeat('x', 1000) FROM generate_series(1, 60)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pace", type=float, default=85.0, help="seconds of a scene (default 85)")
    arguments = parser.parse_args()
    found = find_binaries()
    if isinstance(found, Missing):
        raise SystemExit(found.problem)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Cluster(found, 3, settings={"wal_keep_size": "1GB"}) as cluster,
        agents_beside(Path(scratch), cluster.nodes, {"cluster": "orders"}) as agents,
        browser() as chromium,
    ):
        live(cluster, agents, chromium, arguments.folder, arguments.pace)


def live(cluster: Cluster, agents: list[Agent], chromium: Chromium, folder: Path, pace: float) -> None:
    """The story, and a picture where it is worth one."""
    (pg1, pg2, pg3), (one, two, three) = cluster.nodes, agents
    one.wait_for("/primary", 200)
    pg1.psql("CREATE TABLE written (what text)")
    write(pg1, 1.5 * pace)
    pg3.psql("SELECT pg_wal_replay_pause()")
    write(pg1, pace)
    pg3.psql("SELECT pg_wal_replay_resume()")
    write(pg1, 0.5 * pace)

    pg1.stop("immediate")
    time.sleep(0.3 * pace)
    pg2.promote()
    pg3.follow(pg2)
    two.wait_for("/primary", 200, timeout=60)
    write(pg2, pace)
    pg1.start()  # the old primary returns
    one.wait_for("/primary", 503, "stale_timeline", timeout=60)
    write(pg2, 0.7 * pace)
    pg1.stop()
    pg1.rewind(pg2)
    pg2.wait_streaming(pg1, pg3)
    write(pg2, pace)
    shoot(chromium, two, folder / "status-page.png")

    pg3.promote()  # by mistake
    three.wait_for("/primary", 503, "lost_conflict", timeout=60)
    write(pg2, 0.5 * pace)
    shoot(chromium, two, folder / "split-brain.png", dark=True)
    shoot(chromium, two, folder / "split-brain-narrow.png", width=NARROW)


def write(node: Node, seconds: float) -> None:
    """Clients at work."""
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        node.psql(WRITE)
        time.sleep(0.5)


def shoot(chromium: Chromium, agent: Agent, path: Path, *, width: int = WIDE, dark: bool = False) -> None:
    """Look at a page from its top to the end of the plot."""
    page, complaints = chromium.page(f"{agent.url}/ui", width=width, dark=dark)
    time.sleep(2.5)  # long enough to have been updated in place
    end = page.locator("#hour").bounding_box()
    assert end is not None, "the page has its plot"
    clip: FloatRect = {"x": 0, "y": 0, "width": width, "height": end["y"] + end["height"] + 16}
    page.screenshot(path=path, full_page=True, clip=clip)
    print(f"{path}: {path.stat().st_size >> 10} kB", *complaints, sep="\n  ")
    page.context.close()


if __name__ == "__main__":
    main()
