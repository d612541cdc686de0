"""What happens in one schedule, drawn from its seed: a cluster, a network, and faults at random times.

Each fault is a command of tests/story.py, so that a failing schedule reads like a story.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from healthagent.core.view import Policy

# A slower pace and shorter waits than the defaults make four times as many schedules in the same time.
POLICY = Policy(
    poll_interval=1.0,
    peer_interval=1.0,
    peer_timeout=0.9,
    takeover_after=5.0,
    start_alone_after=5.0,
    isolation_after=2.0,
)


@dataclass(frozen=True)
class Step:
    """A command at an instant."""

    at: float
    command: str


@dataclass(frozen=True)
class Plan:
    """One schedule. With the seed it is all that a run depends on."""

    seed: int
    nodes: str  # a `nodes` command with its options
    delay: float  # seconds that a message takes at most, most of the time
    loss: float
    duplicated: float
    steps: tuple[Step, ...]
    duration: float
    calm: bool  # end with 30 s of calm and one primary, which must serve


def plan_of(seed: int) -> Plan:
    """The schedule of a seed."""
    chance = Random(seed)
    data = chance.choices([2, 3, 4, 5], [58, 35, 4, 3])[0]
    names = [f"pg{number}" for number in range(1, data + 1)]
    witness = ["w9"] if chance.random() < (0.5 if data == 2 else 0.15) else []
    options = [
        option
        for option, likely in (
            ("exchange=signed", 0.5),
            ("isolation=demote", 0.15),
            ("on_conflict=demote_all", 0.05),
            ("state_dir=null", 0.1),
        )
        if chance.random() < likely
    ]
    duration = chance.uniform(4.5, 9.0)
    steps = sorted(_faults(chance, names, names + witness, duration), key=lambda step: step.at)
    return Plan(
        seed=seed,
        nodes=" ".join([*names, *witness, *options]),
        delay=chance.choices([0.005, 0.05, 0.4, 1.2], [40, 35, 18, 7])[0],
        loss=chance.choices([0.0, 0.01, 0.05, 0.3], [55, 20, 17, 8])[0],
        duplicated=chance.choices([0.0, 0.05], [80, 20])[0],
        steps=tuple(steps),
        duration=duration,
        calm=chance.random() < 0.1,
    )


def _faults(chance: Random, data: list[str], members: list[str], duration: float) -> Iterator[Step]:
    for _ in range(chance.randrange(2, 8)):
        draw = chance.choices(list(FAULTS), list(FAULTS.values()))[0]
        at = chance.uniform(0.8, duration - 1)
        for after, command in draw(chance, data, members):
            yield Step(at + after, command)


Commands = Iterator[tuple[float, str]]


def _promotion(chance: Random, data: list[str], _members: list[str]) -> Commands:
    """By mistake, as a planned switchover, or as a failover; the others follow, or not, or late."""
    name = chance.choice(data[1:])
    others = [other for other in data if other != name]
    old = chance.choice(others)
    if chance.random() < 0.5:
        yield 0.0, f"crash {old}"
        if chance.random() < 0.4:
            yield 0.0, f"kill {old}"
    yield chance.choice([0.0, 0.3, 2.0, 4.0]), f"promote {name}"
    for other in others:
        if chance.random() < 0.5:
            yield chance.uniform(2.0, 8.0), f"follow {other} {name}"


def _twins(chance: Random, data: list[str], _members: list[str]) -> Commands:
    """Two standbys promoted at almost the same instant."""
    for name in chance.sample(data, 2):
        yield chance.choice([0.0, chance.uniform(0, 1.5)]), f"promote {name}"


def _reborn(chance: Random, data: list[str], _members: list[str]) -> Commands:
    """A primary goes down and comes back as the primary that it was."""
    name = chance.choice(data)
    yield 0.0, f"crash {name}"
    yield chance.choice([0.2, 1.0, 3.0, 6.0]), f"start {name}"


def _hang(chance: Random, data: list[str], _members: list[str]) -> Commands:
    name = chance.choice(data)
    yield 0.0, f"hang {name}"
    yield chance.uniform(0.5, 6.0), f"resume {name}"


def _freeze(chance: Random, _data: list[str], members: list[str]) -> Commands:
    name = chance.choice(members)
    yield 0.0, f"freeze {name}"
    yield chance.uniform(0.3, 8.0), f"thaw {name}"


def _restart(chance: Random, _data: list[str], members: list[str]) -> Commands:
    """An agent dies, and comes back with its state file, or with an empty folder."""
    name = chance.choice(members)
    yield 0.0, f"kill {name}"
    if chance.random() < 0.3:
        yield 0.0, f"empty {name}"
    yield chance.choice([0.05, 0.6, 3.0, 7.0]), f"boot {name}"


def _cut(chance: Random, _data: list[str], members: list[str]) -> Commands:
    one, other = chance.sample(members, 2)
    yield 0.0, chance.choice([f"cut {one} {other}", f"cut {one} {other} one-way", f"block {one} {other}"])
    yield chance.uniform(0.5, 9.0), f"mend {one} {other}"


def _partition(chance: Random, _data: list[str], members: list[str]) -> Commands:
    side = chance.sample(members, chance.randrange(1, len(members)))
    yield 0.0, f"isolate {' '.join(side)}"
    yield chance.uniform(1.0, 12.0), "heal"


def _lost_side(chance: Random, data: list[str], members: list[str]) -> Commands:
    """The textbook: the primary is cut off, a standby is promoted, the network heals."""
    yield from ((0.0, f"isolate {data[0]}"), (chance.uniform(0.0, 5.0), f"promote {chance.choice(data[1:])}"))
    if chance.random() < 0.3:
        yield 6.0, f"kill {data[0]}"
        yield 6.0, f"boot {data[0]}"
    yield chance.uniform(4.0, 12.0), "heal"


def _power_cut(chance: Random, data: list[str], members: list[str]) -> Commands:
    """All agents start at once, some with nothing kept, perhaps beside several primaries."""
    for name in data[1:]:
        if chance.random() < 0.4:
            yield 0.0, f"promote {name}"
    for name in members:
        yield 0.5, f"kill {name}"
        if chance.random() < 0.6:
            yield 0.5, f"empty {name}"
        yield chance.choice([0.7, 0.7, 0.75, 1.5]), f"boot {name}"


def _turned(chance: Random, data: list[str], _members: list[str]) -> Commands:
    """A mistake that becomes an intention: the follower is moved while the old primary restarts.

    Not everybody can see where the follower went.
    """
    new = chance.choice(data[1:])
    followers = [name for name in data[1:] if name != new]
    yield 0.0, f"promote {new}"
    for name in followers:
        if chance.random() < 0.6:
            yield 0.9, f"block {data[0]} {name}"
        yield 1.0, f"follow {name} {new}"
    yield 1.0, f"crash {data[0]}"
    yield 1.0 + chance.uniform(1.0, 3.2), f"start {data[0]}"


def _disk(chance: Random, data: list[str], _members: list[str]) -> Commands:
    name = chance.choice(data)
    yield 0.0, f"disk {name} full"
    yield chance.uniform(2.0, 9.0), f"disk {name} ok"


def _repoint(chance: Random, data: list[str], _members: list[str]) -> Commands:
    one, other = chance.sample(data, 2)
    yield 0.0, f"follow {one} {other}"


def _maintenance(chance: Random, data: list[str], _members: list[str]) -> Commands:
    name = chance.choice(data)
    yield 0.0, f"maintenance {name} on"
    yield chance.uniform(1.0, 5.0), f"maintenance {name} off"


FAULTS: dict[Callable[[Random, list[str], list[str]], Commands], int] = {
    _promotion: 24,
    _twins: 6,
    _reborn: 14,
    _hang: 6,
    _freeze: 10,
    _restart: 14,
    _cut: 10,
    _partition: 8,
    _lost_side: 8,
    _power_cut: 5,
    _turned: 7,
    _disk: 4,
    _repoint: 5,
    _maintenance: 2,
}
