"""What pgpool's README and the runbook say to do, done with the real programs."""

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from healthagent.config import Address
from healthagent.demo.cluster import Cluster
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import until
from healthagent.pgpool.server import BridgeServer
from tests.bed.bridge import SETUP, Bed, get
from tests.bed.command import healthagent, ran
from tests.bed.haproxy import INSTALL, Binary, Haproxy, socket_of
from tests.bed.pgpool import PASSWORD, Pgpool

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
DEFAULTS = """
global
    stats socket {socket} mode 600 level admin
defaults
    mode tcp
    timeout connect 1s
    timeout check 1s
    timeout client 30s
    timeout server 30s
    default-server inter 100ms fall 1 rise 1
"""


async def test_haproxy_before_several_pgpools_asks_the_bridge(tmp_path: Path) -> None:
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.fail(f"no haproxy: run `{INSTALL}`", pytrace=False)
    readme = (ROOT / "pgpool/README.md").read_text()
    [block] = re.findall(r"```\n(backend pgpools\n.*?)```", readme, re.DOTALL)
    ready = True
    server = BridgeServer(lambda: (ready, "why"), CollectorRegistry())
    listener = await server.listen(Address("127.0.0.1", 0))
    port = listener.sockets[0].getsockname()[1]
    assert block.count(" check port 8011") == 2
    servers = re.sub(r"10\.0\.0\.\d+", "127.0.0.1", block).replace("8011", str(port))
    text = DEFAULTS.format(socket=socket_of(tmp_path)) + servers

    async def checked(status: str, code: str) -> None:
        async with asyncio.timeout(SETUP):
            while True:
                stats = await asyncio.to_thread(proxy.stats)
                if {(row["status"], row["check_code"]) for row in stats if "pool" in row["svname"]} == {
                    (status, code)
                }:
                    return
                await asyncio.sleep(0.05)

    with Haproxy(Binary(Path(found), ""), text, tmp_path) as proxy:
        await checked("UP", "200")
        ready = False
        await checked("DOWN", "503")
    listener.close()
    await server.close()


def test_the_runbook_asks_pgpool_as_it_is_shipped(streaming: Cluster, tmp_path: Path) -> None:
    command = re.search(r"`(pcp_node_info [^`]*)`", (ROOT / "docs/runbook.md").read_text())
    assert command is not None
    with Pgpool(streaming.root / "pgpool", streaming.nodes) as pgpool:
        words = [
            {"/var/run/postgresql": str(pgpool.folder), "9898": str(pgpool.pcp_port)}.get(word, word)
            for word in command[1].split()
        ]
        passwords = tmp_path / "pcppass"
        passwords.write_text(f"*:*:pcp:{PASSWORD}\n")
        passwords.chmod(0o600)
        asked = subprocess.run(
            [*words, "-w"],  # -w: not by keyboard
            env=os.environ | {"PCPPASSFILE": str(passwords)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (asked.returncode, asked.stderr) == (0, "")
    assert [line.split()[1] for line in asked.stdout.splitlines()] == [
        str(node.port) for node in streaming.nodes
    ]


def test_a_witness_stands_beside_the_agents_of_backends(pair: Bed) -> None:
    """It breaks the tie for failover.sh, and the bridge runs on with the same settings."""
    pair.start_stand_ins()
    pair.start_pgpool()
    listen = f"127.0.0.1:{free_port()}"
    witness = healthagent(
        pair.folder / "witness.log",
        *("run", "--witness", "--name=w1", f"--listen={listen}", f"--peer=pg1={pair.agents['pg1']}"),
        HEALTHAGENT_STATE_DIR=str(pair.folder / "w1"),
    )
    pair.processes.append(pair.stack.enter_context(witness))
    until(lambda: get(f"http://{listen}/liveness")[0] == 200, SETUP, "the witness is up")
    with_witness = [*pair.options(), f"--agent=w1=http://{listen}"]
    pair.start_bridge(f"--agent=w1=http://{listen}")
    until(pair.ready, SETUP, "ready")
    assert "w1 speaks for no backend: it counts for majorities only" in pair.tail()
    assert "has no agent" not in pair.tail()

    pair.stand_ins["pg1"].silence()
    assert ran("pgpool-sync", "--may-promote", *with_witness).returncode == 0
    tie = ran("pgpool-sync", "--may-promote", *pair.options())
    assert (tie.returncode, "only 1 of 2 agents" in tie.stderr) == (1, True), tie.stderr
    pair.stand_ins["pg1"].speak()
    until(pair.ready, SETUP, "ready")
    assert pair.actions() == {}


def test_a_backend_without_an_agent_is_warned_of_once(pair: Bed) -> None:
    pair.start_stand_ins()
    pair.start_pgpool()
    only_first = [option for option in pair.options() if not option.startswith("--backend=pg2")]
    log = pair.folder / "bridge.log"
    pair.processes.append(
        pair.stack.enter_context(healthagent(log, "pgpool-sync", "--interval=100ms", *only_first))
    )
    until(lambda: pair.metric("healthagent_pgpool_polls_total") >= 5, SETUP, "it has looked several times")
    said = log.read_text()
    assert said.count("has no agent") == 1, said
    assert f"backend 1 (127.0.0.1:{pair.nodes[1].port}) has no agent: it is never touched" in said
    pair.stand_ins["pg2"].refuse("diverged")
    polls = pair.metric("healthagent_pgpool_polls_total")
    until(lambda: pair.metric("healthagent_pgpool_polls_total") >= polls + 5, SETUP, "and several more")
    assert pair.actions() == {}
