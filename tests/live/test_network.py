"""The bed's network: hosts reach each other, cuts cut what they say, and nothing is left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.network import Network, sweep
from tests.bed.site import Site

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
IS_KILLED = """
import os, signal, subprocess
from tests.bed.network import Network
network = Network(["a"]).__enter__()
subprocess.Popen([*network["a"].prefix, "sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(network["a"].namespace, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def network(shared_site: Site) -> Iterator[Network]:
    """Three hosts; `shared_site` fails where there can be none."""
    with Network(["a", "b", "c"]) as made:
        yield made


def reaches(network: Network, source: str, target: str, port: int) -> bool:
    """Whether a connection can be opened: nobody listens, so a refusal is an answer."""
    connect = f"import socket; socket.create_connection(({network[target].address!r}, {port}), 0.3)"
    ran = subprocess.run(
        [*network[source].prefix, sys.executable, "-IS", "-c", connect], capture_output=True, text=True
    )
    return "ConnectionRefusedError" in ran.stderr


def test_a_cut_cuts_what_it_says(network: Network) -> None:
    network.cut(["a"], ["b"], syn_only=True)
    assert [reaches(network, one, other, 80) for one, other in ("ab", "ba", "ac")] == [False, True, True]
    network.heal()
    network.cut(["a"], port=80)
    assert [reaches(network, "a", "b", port) for port in (80, 81)] == [False, True]
    network.heal()
    assert reaches(network, "a", "b", 80)


def test_what_a_killed_run_leaves_is_swept_away(network: Network) -> None:
    ran = subprocess.run([sys.executable, "-c", IS_KILLED], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    left = ran.stdout.strip()
    assert left in os.listdir("/run/netns")
    sweep()
    assert left not in os.listdir("/run/netns")
    assert network["a"].namespace in os.listdir("/run/netns"), "a run that goes on keeps its own"
