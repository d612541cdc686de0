"""The walk-through: a failover, an old primary that returns, a standby promoted by mistake.

Each step explains, does it to real servers, shows what the agents say, and checks what it claims.
"""

import time
from collections.abc import Sequence

from healthagent.clock import boottime
from healthagent.core.model import Instant
from healthagent.demo.postgres import Node
from healthagent.demo.scene import Scene, eventually, says
from healthagent.demo.watch import WITHIN

DRAIN = 3.0  # seconds, the agents' default
CALM = 2.5  # seconds to look at something that must not happen: five polls and five peer rounds
AT_ONCE = 1.0  # seconds: far below the 2 s after which evidence is stale; it takes milliseconds


def walk(scene: Scene) -> None:
    """Take all steps, one after another."""
    old, *standbys = scene.cluster.nodes
    show_cluster(scene, old, standbys)
    died_at = kill_primary(scene, old, standbys)
    new, other = _most_advanced(standbys)
    promote(scene, old, new, other, died_at)
    return_old_primary(scene, old, new)
    rejoin(scene, old, new)
    promote_by_mistake(scene, other, new, old)
    put_right(scene, other, new)
    stop_agents(scene, new)
    look_back(scene)


def show_cluster(scene: Scene, primary: Node, standbys: Sequence[Node]) -> None:
    """Show who says what while all is well."""
    screen, names = scene.screen, " and ".join(node.name for node in standbys)
    screen.step(
        "A cluster, with an agent beside each node",
        f"""{primary.name} is the primary, {names} stream from it. Each agent asks its own PostgreSQL and the
        other agents twice a second, and answers HTTP checks from memory: 200 on /primary may be given
        writes, 200 on /replica may be given reads.""",
    )
    permitted = scene.watch.wait(primary.name, says(200, "primary"))
    ready = [permitted, *(scene.wait_replica(node, "replica") for node in standbys)]
    scene.list(primary)
    scene.answers("/primary")
    scene.answers("/replica")
    screen.claim("one agent answers 200 on /primary, the others 200 on /replica", all(ready), scene.said())
    if scene.proxy and scene.writer:
        writer = scene.writer
        arrived = eventually(lambda: bool(writer.writes))
        screen.claim(
            f"a client writes through HAProxy's port {scene.proxy.write_port}, and {primary.name} takes it",
            arrived and {write.node for write in writer.writes} == {primary.name},
            str({write.node for write in writer.writes}),
        )


def kill_primary(scene: Scene, primary: Node, standbys: Sequence[Node]) -> Instant:
    """Kill the primary with SIGKILL; returns when."""
    screen = scene.screen
    screen.step(
        "The primary dies",
        f"""kill -9 of {primary.name}. Its agent holds one connection, sees it break, and asks again at once.
        Nobody promotes anything: that is for you, or for the tool that you use for it.""",
    )
    at = boottime()
    primary.kill9()
    scene.watch.wait(primary.name, says(503, "postgres_down"))
    changes = scene.watch.since(at, primary.name)
    took = changes[0].at - at if changes else WITHIN
    scene.changes(at)
    screen.claim(
        f"{primary.name} is 503 {took * 1000:.0f} ms after the kill",
        took < AT_ONCE and scene.watch.latest[primary.name].reason == "postgres_down",
        str(scene.watch.latest[primary.name]),
    )
    reading = [scene.wait_replica(node, "replica_no_primary") for node in standbys]
    scene.answers("/replica")
    screen.claim("reads survive: both standbys stay 200 on /replica", all(reading), scene.said())
    return at


def promote(scene: Scene, old: Node, new: Node, other: Node, died_at: Instant) -> None:
    """Promote the standby, point the other one at it, and follow the writes."""
    screen, watch = scene.screen, scene.watch
    screen.step(
        "A standby is promoted",
        f"""pg_promote() on {new.name}, which has received the most; {other.name} streams from it now.
        {new.name} asks every other agent before it says 200, and waits until {old.name} has been out of
        service for `drain` ({DRAIN:g} s): sessions on the old primary must have ended first.""",
    )
    at = boottime()
    new.promote()
    other.follow(new)
    served = watch.wait(new.name, says(200, "primary"))
    scene.changes(at)
    permitted = next((change.at for change in watch.since(at, new.name) if change.answer.code == 200), at)
    gap = permitted - watch.permitted_at[old.name]
    due = max(DRAIN - (at - died_at), 0.0)
    screen.claim(
        f"{new.name} is 200 {permitted - at:.1f} s after its promotion, {gap:.1f} s after the last 200 of"
        f" {old.name}",
        served and gap >= DRAIN - 0.1 and permitted - at < due + 5.0,
        str(watch.latest[new.name]),
    )
    if scene.writer:
        writer = scene.writer
        eventually(lambda: writer.first_on(new.name) is not None)
        last, first = writer.last_on(old.name), writer.first_on(new.name)
        gone = f"{first.done_at - last.done_at:.1f} s" if first and last else "?"
        screen.claim(
            f"writes through HAProxy follow: first one on {new.name} {gone} after the last one on {old.name}",
            first is not None and last is not None and last.done_at < first.asked_at,
            f"first {first}, last {last}",
        )
    eventually(lambda: other.name in new.followers())
    scene.list(new)


def return_old_primary(scene: Scene, old: Node, new: Node) -> None:
    """Start the old primary as it is: a primary on the old timeline."""
    screen, watch = scene.screen, scene.watch
    screen.step(
        "The old primary returns",
        f"""{old.name} is started as it was: PostgreSQL is up, a primary, and takes writes from whoever
        connects. A check that only asks its own PostgreSQL would say 200. The agents remember which
        timeline clients were sent to, and an older one never gets 200 again.""",
    )
    at = boottime()
    old.start()
    refused = watch.wait(old.name, says(503, "stale_timeline"))
    time.sleep(CALM)
    scene.changes(at)
    scene.answers("/primary")
    looks = watch.looks
    screen.claim(
        f"{old.name} is 503 stale_timeline, and was 200 at no moment since its start",
        refused and not any(change.answer.code == 200 for change in watch.since(at, old.name)),
        f"{watch.latest[old.name]} ({looks} looks)",
    )
    scene.undisturbed(new, at)


def rejoin(scene: Scene, old: Node, new: Node) -> None:
    """Rewind the old primary and let it stream from the new one."""
    screen = scene.screen
    screen.step(
        "It is rewound and rejoins",
        f"""pg_rewind makes {old.name} a standby of {new.name}. What it wrote and nobody streamed is gone.""",
    )
    at = boottime()
    old.rewind(new)
    back = scene.wait_replica(old, "replica")
    took = boottime() - at
    new.wait_streaming(old)
    scene.list(old)
    screen.claim(f"{old.name} is 200 on /replica {took:.1f} s after pg_rewind began", back, scene.said())
    scene.undisturbed(new, at)


def promote_by_mistake(scene: Scene, wrong: Node, rightful: Node, follower: Node) -> None:
    """Promote a standby while the primary serves."""
    screen, watch = scene.screen, scene.watch
    screen.step(
        "A standby is promoted by mistake",
        f"""pg_promote() on {wrong.name} while {rightful.name} serves. Now there are two primaries, and the
        newer timeline is the wrong one. {follower.name} still streams from {rightful.name}, and clients were
        sent to it: two signals against one.""",
    )
    at = boottime()
    wrong.promote()
    refused = watch.wait(wrong.name, says(503, "lost_conflict"))
    time.sleep(CALM)
    scene.changes(at)
    scene.list(wrong)
    screen.claim(
        f"{wrong.name} is 503 lost_conflict, and was 200 at no moment",
        refused and not any(change.answer.code == 200 for change in watch.since(at, wrong.name)),
        str(watch.latest[wrong.name]),
    )
    scene.undisturbed(rightful, at)
    if scene.writer:
        takers = {write.node for write in scene.writer.since(at)}
        screen.claim(
            f"every write through HAProxy went to {rightful.name}", takers == {rightful.name}, str(takers)
        )


def put_right(scene: Scene, wrong: Node, rightful: Node) -> None:
    """Rewind the standby that was promoted by mistake."""
    scene.screen.step(
        "The mistake is put right", f"pg_rewind again: {wrong.name} is a standby of {rightful.name} again."
    )
    at = boottime()
    wrong.rewind(rightful)
    back = scene.wait_replica(wrong, "replica")
    rightful.wait_streaming(wrong)
    scene.list(rightful)
    scene.screen.claim(
        f"one primary and two replicas again, {boottime() - at:.1f} s later", back, scene.said()
    )
    scene.undisturbed(rightful, at)


def stop_agents(scene: Scene, primary: Node) -> None:
    """Stop the agents as an upgrade would, with SIGTERM."""
    screen, watch = scene.screen, scene.watch
    screen.step(
        "The agents are stopped",
        """SIGTERM, as for an upgrade: an agent says `stopping` for 2 s so that every checker hears it, and
        ends. PostgreSQL goes on.""",
    )
    at = boottime()
    processes = [agent.process for agent in scene.agents if agent.process is not None]
    for process in processes:
        process.terminate()
    said = watch.wait(primary.name, says(503, "stopping"))
    heard = watch.since(at, primary.name)
    took = heard[0].at - at if heard else WITHIN
    eventually(lambda: all(process.poll() is not None for process in processes))
    screen.claim(
        f"{primary.name} is 503 stopping after {took * 1000:.0f} ms", said and took < AT_ONCE, str(heard[:1])
    )
    codes = [process.poll() for process in processes]
    screen.claim(
        f"all agents have ended with exit code 0, {boottime() - at:.1f} s after SIGTERM",
        codes == [0] * len(processes) and boottime() - at < 5.5,
        str(codes),
    )


def look_back(scene: Scene) -> None:
    """Say what held at every moment of the demo."""
    watch, writer = scene.watch, scene.writer
    scene.screen.step(
        "Looking back", "The demo has asked every agent all the time, and written all the time."
    )
    scene.screen.claim(
        f"in {watch.looks} looks at all agents, never did two say 200 on /primary",
        not watch.double and watch.looks > 0,
        "; ".join(watch.double[:3]),
    )
    if writer:
        runs: list[str] = []
        for write in writer.writes:
            if not runs or runs[-1] != write.node:
                runs.append(write.node)
        scene.screen.claim(
            f"{len(writer.writes)} writes through HAProxy went to {', then to '.join(runs)}, and never back",
            len(runs) == len(set(runs)) > 1,
            str(runs),
        )


def _most_advanced(standbys: Sequence[Node]) -> tuple[Node, Node]:
    """The standby that has received the most WAL, first; the other could not follow a shorter history."""

    def received(node: Node) -> int:
        [(lsn,)] = node.psql("SELECT pg_last_wal_receive_lsn() - '0/0'")
        return int(lsn)

    first, second = standbys
    return (second, first) if received(second) > received(first) else (first, second)
