"""The scenario of repmgr's child_nodes_* settings, with the hook of this project, in network namespaces.

Primary, standby and witness. Every link of the primary is rejected: it refuses after `isolation_after`, its
fence hook stops it `fence.after` later, and the standby that is promoted meanwhile serves when that is over.
"""

import shlex
import time
from pathlib import Path

import pytest

from healthagent.clock import boottime
from healthagent.demo.postgres import until
from tests.bed.fencing import FENCING, stop_arguments, tools_in, variables, write
from tests.bed.site import DRAIN, MOMENT, ROUND, Site, gap

pytestmark = pytest.mark.live

# 3 to 4 s from the cut to the hook, as the settings of repmgr that fencing/README.md maps to these
ISOLATION_AFTER, FENCE_AFTER = 2.5, 1.0
SETTINGS = {"isolation": "demote", "isolation_after": "2500ms"}
LATE = 3.0  # seconds by which a machine that does other things may be late


def hook(site: Site, folder: Path) -> tuple[Path, Path]:
    """A fence command for pg1 that notes the clock and its environment, then stops PostgreSQL."""
    folder.mkdir(exist_ok=True)
    node, ran, script = site.node("pg1"), folder / "ran", folder / "fence"
    env = variables(node, tools_in(folder / "tools"))
    words = shlex.join([str(FENCING / "stop-postgres.sh"), *stop_arguments(node)])
    write(
        script,
        f'{{ cut -d" " -f1 /proc/uptime; echo "$HEALTHAGENT_REASON $HEALTHAGENT_MEMBERS_HEARD"; }} >> {ran}\n'
        f"PATH={shlex.quote(env['PATH'])} exec {words}",
    )
    return script, ran


def test_an_isolated_primary_is_stopped_by_the_hook_and_the_standby_takes_over(
    site: Site, tmp_path: Path
) -> None:
    site.ready(SETTINGS, nodes=2)
    script, ran = hook(site, tmp_path / "hook")
    site.agents["pg1"].reload(fence={"command": [str(script)], "after": f"{FENCE_AFTER:g}s"})
    until(lambda: "fence.command" in site.agents["pg1"].log(), 10, "the hook is configured")

    cut_at = boottime()
    site.network.reject("pg1")
    site.wait("pg1", "isolated")
    site.node("pg2").promote()
    until(lambda: not site.node("pg1").is_running(), 20, "the hook has stopped PostgreSQL")
    clock, told = ran.read_text().splitlines()
    assert told == "isolated 1"
    after = float(clock) - cut_at
    # the last answer of a majority was at most an interval old when the links were cut
    assert ISOLATION_AFTER + FENCE_AFTER - 0.5 - 0.1 <= after <= 4.0 + LATE, f"{after:.2f} s after the cut"
    print(f"hook {after:.2f} s after the cut")  # for fencing/README.md

    site.wait("pg2", "primary", timeout=20)
    assert gap(site.services("pg1"), site.services("pg2")) >= DRAIN
    site.network.heal()
    time.sleep(ROUND)
    assert site.services("pg2")[-1].ended > boottime() - MOMENT - ROUND, "undisturbed"
    [events] = [site.agents["pg1"].get("/events?limit=500").json]
    kinds = [(one["kind"], one.get("reason")) for one in events["events"] if one["kind"] == "fence"]
    assert kinds == [("fence", "begin"), ("fence", "ok")]


def test_the_loss_of_one_link_isolates_nobody(site: Site, tmp_path: Path) -> None:
    """The witness is heard: with it the primary has a majority, and repmgr would have waited too."""
    site.ready(SETTINGS, nodes=2)
    script, ran = hook(site, tmp_path / "hook")
    site.agents["pg1"].reload(fence={"command": [str(script)], "after": "0s"})
    until(lambda: "fence.command" in site.agents["pg1"].log(), 10, "the hook is configured")
    site.network.cut(["pg1"], ["pg2"])
    time.sleep(ISOLATION_AFTER + FENCE_AFTER + MOMENT)
    assert site.reasons("pg1") == {"primary"}
    assert not ran.exists()


def test_a_wrong_secret_is_no_isolation(site: Site, tmp_path: Path) -> None:
    """Everybody answers 401: the verdict refuses, and a healthy PostgreSQL is left alone."""
    site.ready(SETTINGS, nodes=2, secret=True)
    script, ran = hook(site, tmp_path / "hook")
    agent = site.agents["pg1"]
    agent.reload(
        fence={"command": [str(script)], "after": "0s"},
        peer={"secret": "another one than that of the others"},
    )
    site.wait("pg1", "isolated")
    until(lambda: "fence: not run: peers answer" in agent.log(), 10, "the agent says why it runs nothing")
    time.sleep(1.0)
    assert not ran.exists()
    assert site.node("pg1").is_running()
