"""The other side of a replacement, played step by step, up to where it is to fail.

    python -m tests.bed.succession successor STATE_DIR NAME STAGE HOW
    python -m tests.bed.succession predecessor STATE_DIR HOST:PORT STAGE HOW

It says so when it has reached the stage, and then dies (HOW is `die`), stays, silent (`stay`), or hangs up
and lives on (`leave`). A process of its own, since a death is believed only when the kernel knows of it.
"""

import os
import socket
import sys
import time
from pathlib import Path

import msgspec

from healthagent import __version__
from healthagent.clock import boottime
from healthagent.core.model import Local
from healthagent.core.view import Maintenance, Memory
from healthagent.takeover import bind
from healthagent.takeover.channel import Channel
from healthagent.takeover.knowledge import Known
from healthagent.takeover.messages import (
    VERSION,
    Clients,
    Go,
    Have,
    Hello,
    Knowledge,
    Message,
    NotYet,
    Offer,
    Ready,
    Rehearsal,
    Take,
    Welcome,
)
from healthagent.takeover.place import connect

WITHIN = 30.0  # seconds, on a busy machine
SUCCESSOR = ("welcomed", "rehearsed", "taking", "knowing", "having", "committed")
PREDECESSOR = ("greeted", "welcoming", "still")


def successor(state_dir: Path, name: str, stage: str) -> None:
    """Be replaced by nobody: go as far as `stage` with the agent that runs there."""
    connection = connect(state_dir)
    assert connection is not None, "no agent runs there"
    channel = Channel(connection)
    kept.append(channel)
    channel.send(Hello(VERSION, __version__, name, "main"), WITHIN)
    channel.receive(Welcome, WITHIN)
    if stage == "welcomed":
        return
    answer: Message = NotYet("")
    while not isinstance(answer, Rehearsal):
        channel.send(Ready(True, None, {}), WITHIN)
        answer = channel.receive_any(WITHIN)
    if stage == "rehearsed":
        return
    channel.send(Take(), WITHIN)
    if stage == "taking":
        return
    while not isinstance(answer := channel.receive_any(WITHIN), Knowledge):
        assert isinstance(answer, Clients)
    if stage == "knowing":
        return
    channel.send(Have(), WITHIN)
    if stage == "committed":
        channel.receive(Go, WITHIN)


def predecessor(state_dir: Path, address: str, stage: str) -> socket.socket:
    """Be replaced by nobody: listen, and go as far as `stage` with the agent that starts."""
    host, port = address.rsplit(":", 1)
    listening = socket.create_server((host, int(port)), backlog=100)
    state_dir.mkdir(parents=True, exist_ok=True)
    place = bind(state_dir)
    place.settimeout(WITHIN)
    sys.stdout.write("listens\n")
    sys.stdout.flush()
    channel = Channel(place.accept()[0])
    kept.append(channel)
    channel.receive(Hello, WITHIN)
    if stage == "greeted":
        return listening
    offers = (Offer(address, 1),)
    channel.send(Welcome(VERSION, __version__, "start of another", offers), WITHIN, [listening.fileno()])
    channel.receive(Ready, WITHIN)
    if stage == "welcoming":
        return listening
    # whoever believed this would refuse everything
    told = Known(Memory(boottime(), maintenance=Maintenance(None)), Local(), ())
    body = msgspec.msgpack.encode(told)
    channel.send(Rehearsal(body), WITHIN)
    channel.receive(Take, WITHIN)
    channel.send(Knowledge(body), WITHIN)
    channel.receive(Have, WITHIN)
    return listening


kept: list[Channel | socket.socket] = []  # what must not be closed while this process lives


def main() -> None:
    """As the docstring of the module says."""
    side, state_dir, what, stage, how = sys.argv[1:]
    if side == "successor":
        successor(Path(state_dir), what, stage)
    else:
        kept.append(predecessor(Path(state_dir), what, stage))
    sys.stdout.write("there\n")
    sys.stdout.flush()
    if how == "leave":
        for one in kept:
            one.close()
    if how != "die":
        time.sleep(WITHIN)
    os._exit(0)


if __name__ == "__main__":
    main()
