"""Ask an agent for /primary every few milliseconds, and judge all agents' answers together.

    sampler = Sampler(host, port, folder); sampler.start(); ...; samples = sampler.stop()
    overlaps({"pg1": samples, ...})     # moments at which two agents answered 200

One process per agent, in the agent's own namespace, so that no fault of the network lies between the
two. All namespaces share one kernel clock: CLOCK_BOOTTIME before a question and after its answer
brackets the moment of the decision, and the brackets of different agents can be compared exactly.

The file is also that process: sampler.py HOST PORT FILE EVERY. It imports nothing of ours.
"""

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

EVERY = 0.005  # seconds
PATIENCE = 30.0  # seconds: what a frozen agent answers when it wakes up must be read, too
UNREACHABLE = 0  # in place of a status
QUESTION = b"GET /primary HTTP/1.1\r\nHost: sampler\r\n\r\n"


class Sample(NamedTuple):
    """One answer, decided at some moment between `before` and `after`."""

    before: float
    after: float
    status: int
    reason: str
    timeline: int  # 0: none


class Service(NamedTuple):
    """A stretch of 200s of one agent on one timeline, as long as it can have been."""

    agent: str
    timeline: int
    began: float
    ended: float


class Sampler:
    """One sampling process; `prefix` runs it in the agent's namespace."""

    def __init__(self, prefix: Sequence[str], host: str, port: int, file: Path, every: float = EVERY) -> None:
        self.file = file
        command = [*prefix, sys.executable, "-IS", __file__, host, str(port), str(file), str(every)]
        self._process = subprocess.Popen(command)

    def samples(self) -> list[Sample]:
        """All answers so far."""
        if not self.file.exists():
            return []
        lines = self.file.read_text().rpartition("\n")[0].splitlines()  # the last may be half written
        return [_parsed(line) for line in lines]

    def stop(self) -> list[Sample]:
        """End it; idempotent. Returns all answers."""
        self._process.kill()
        self._process.wait()
        return self.samples()


def services(agent: str, samples: Iterable[Sample]) -> list[Service]:
    """Group 200s in a row."""
    found: list[Service] = []
    going = False
    for sample in samples:
        if sample.status == 200 and going and found[-1].timeline == sample.timeline:
            found[-1] = found[-1]._replace(ended=sample.after)
        elif sample.status == 200:
            found.append(Service(agent, sample.timeline, sample.before, sample.after))
        going = sample.status == 200
    return found


def overlaps(
    samples: Mapping[str, Sequence[Sample]], since: float = float("-inf")
) -> list[tuple[Service, Service, float]]:
    """Pairs of stretches in which two agents answered 200 at one moment after `since`, with its seconds."""
    all_services = [one for agent, its in samples.items() for one in services(agent, its)]
    found = []
    for one, other in combinations(all_services, 2):
        seconds = min(one.ended, other.ended) - max(one.began, other.began, since)
        if one.agent != other.agent and seconds > 0:
            found.append((one, other, seconds))
    return found


def outdated(
    samples: Mapping[str, Sequence[Sample]], since: float = float("-inf")
) -> list[tuple[str, Sample]]:
    """200s, asked for after `since`, on a timeline below one on which a 200 had been given by then."""
    given = [
        (sample.after, sample.timeline) for its in samples.values() for sample in its if sample.status == 200
    ]
    first: dict[int, float] = {}
    for after, timeline in sorted(given):
        first.setdefault(timeline, after)
    return [
        (agent, sample)
        for agent, its in samples.items()
        for sample in its
        if sample.status == 200
        and sample.before > since
        and any(sample.before > at for timeline, at in first.items() if timeline > sample.timeline)
    ]


def slowest_percent(samples: Iterable[Sample]) -> float:
    """Seconds within which 99 % of the answers came; 0 when there are too few to say."""
    took = [sample.after - sample.before for sample in samples if sample.status != UNREACHABLE]
    return statistics.quantiles(took, n=100)[98] if len(took) >= 100 else 0.0


def _parsed(line: str) -> Sample:
    before, after, status, reason, timeline = line.split(" ")
    return Sample(float(before), float(after), int(status), reason, int(timeline))


def sample_for_ever(host: str, port: int, file: Path, every: float) -> None:
    """Ask on one connection, opened anew when it breaks, and write a line for each answer."""
    connection: socket.socket | None = None
    with file.open("w", buffering=1) as out:
        while True:
            before = _now()
            try:
                if connection is None:
                    connection = socket.create_connection((host, port), PATIENCE)
                connection.sendall(QUESTION)
                status, reason, timeline = _answer(connection)
            except OSError:
                status, reason, timeline = UNREACHABLE, "unreachable", 0
                if connection is not None:
                    connection.close()
                    connection = None
            after = _now()
            out.write(f"{before!r} {after!r} {status} {reason} {timeline}\n")
            time.sleep(max(0.0, before + every - _now()))


def _answer(connection: socket.socket) -> tuple[int, str, int]:
    """Status, reason, and the timeline in the body; ConnectionError when the answer breaks off."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(body) < int(fields["content-length"]):
        body += _more(connection)
    if fields.get("connection") == "close":
        connection.close()  # the next question finds that out
    found = body.partition(b'"timeline":')[2].lstrip()
    digits = found[: len(found) - len(found.lstrip(b"0123456789"))]
    return int(lines[0].split()[1]), fields.get("x-healthagent-reason", "none"), int(digits or 0)


def _more(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("closed")
    return received


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if __name__ == "__main__":
    sample_for_ever(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
