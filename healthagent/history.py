"""The last hour of every member as this agent saw it, in memory of a fixed size.

One sample each second; `SLOT` seconds share one place, and of what was seen in them the
worst is kept, so that a short refusal stays visible. 720 places of 6 bytes for each member
(4.5 kB; 292 kB measured for 65 of them), however much changes. A restart forgets it.
"""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from typing import TypeVar

from healthagent.core.model import Instant, Reason, Role
from healthagent.standing import Standing, known_reason

Number = TypeVar("Number", int, float)

SLOT = 5.0  # seconds
SLOTS = 720  # an hour of them
LOOK_EVERY = 1.0  # seconds
MOST_MEMBERS = 65  # of the configuration at most 64 peers, and this node
MOST_STATES = 1024  # distinct ones that are told apart
TIDY_EVERY = 12  # slots, a minute: looking through all places takes milliseconds
NO_LAG = -1.0


class Shade(IntEnum):
    """What a member was good for, as the plot shows it; of two in one slot the larger is kept."""

    NOTHING = 0  # this agent did not look: it had not started, or was frozen
    WITNESS = 1
    READS = 2  # it took reads
    WRITES = 3  # it took writes
    OUT = 4  # an operator took it out, or its agent was stopping
    REPLICA_REFUSED = 5
    SILENT = 6  # its agent was not heard
    DOWN = 7  # its agent was heard, its PostgreSQL did not answer
    PRIMARY_REFUSED = 8


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered of a member, beside its lag."""

    shade: Shade
    timeline: int | None = None
    reason: str = ""


UNSEEN = State(Shade.NOTHING)


@dataclass(frozen=True, slots=True)
class Run:
    """The same state over neighbouring slots, from `begin` up to and not including `end`."""

    begin: int
    end: int
    state: State


def shade_of(standing: Standing) -> Shade:
    """What a member is good for."""
    if not standing.heard:
        return Shade.SILENT
    if standing.writes:
        return Shade.WRITES
    if standing.reason in (Reason.MAINTENANCE, Reason.STOPPING):
        return Shade.OUT
    if standing.witness:
        return Shade.WITNESS
    if standing.role is None:
        return Shade.DOWN
    if standing.role is Role.PRIMARY:
        return Shade.PRIMARY_REFUSED
    return Shade.REPLICA_REFUSED if standing.reads is False else Shade.READS


class Track:
    """One member's hour: a ring of places, written at `slot % SLOTS`."""

    def __init__(self) -> None:
        self.states = array("H", bytes(2 * SLOTS))  # an index into the states that the history knows
        self.lags = array("f", [NO_LAG]) * SLOTS  # bytes


class History:
    """Looks at the members once a second and remembers an hour."""

    def __init__(self, look: Callable[[Instant], Iterable[Standing]], now: Instant) -> None:
        self._look = look
        self._looked_at = float("-inf")
        self._slot = self._begun = int(now // SLOT)
        self._tidied = 0
        self.version = 0  # grows with each change of what `runs` says
        self._tracks: dict[str, Track] = {}
        self._states: list[State] = [UNSEEN]
        self._numbers: dict[State, int] = {UNSEEN: 0}

    def look(self, now: Instant) -> None:
        """Take a sample if the last one is a second old."""
        if now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
            self.note(self._look(now), now)

    def note(self, standings: Iterable[Standing], now: Instant) -> None:
        """Take a sample."""
        self._advance(int(now // SLOT))
        seen = {standing.entry: standing for standing in list(standings)[:MOST_MEMBERS]}
        for gone in self._tracks.keys() - seen.keys():
            del self._tracks[gone]
            self.version += 1
        place = self._slot % SLOTS
        for entry, standing in seen.items():
            track = self._tracks.get(entry)
            if track is None:
                track = self._tracks[entry] = Track()
            state = State(shade_of(standing), standing.timeline, known_reason(standing.reason))
            before = self._states[track.states[place]]
            if state != before and state.shade >= before.shade:
                track.states[place] = self._number(state)
                self.version += 1
            if standing.lag_bytes is not None:
                track.lags[place] = max(track.lags[place], float(standing.lag_bytes))

    def _advance(self, slot: int) -> None:
        """Go on to a slot; those in between were slept through, and nothing is known of them."""
        for passed in range(max(self._slot + 1, slot - SLOTS + 1), slot + 1):
            for track in self._tracks.values():
                track.states[passed % SLOTS] = 0
                track.lags[passed % SLOTS] = NO_LAG
        if slot > self._slot:
            self._slot = slot
            self.version += 1

    def _number(self, state: State) -> int:
        number = self._numbers.get(state)
        if number is not None:
            return number
        if len(self._states) >= MOST_STATES - len(Shade) and self._slot >= self._tidied + TIDY_EVERY:
            self._forget_unused()
        if len(self._states) >= MOST_STATES - len(Shade):
            state = State(state.shade, None, "other")  # the last places are for these
            if (number := self._numbers.get(state)) is not None:
                return number
        self._states.append(state)
        self._numbers[state] = len(self._states) - 1
        return self._numbers[state]

    def _forget_unused(self) -> None:
        """Number anew what is still in use: peers may make up timelines for ever."""
        self._tidied = self._slot
        used = sorted({number for track in self._tracks.values() for number in track.states} | {0})
        anew = {old: new for new, old in enumerate(used)}
        self._states = [self._states[number] for number in used]
        self._numbers = {state: number for number, state in enumerate(self._states)}
        for track in self._tracks.values():
            track.states = array("H", (anew[number] for number in track.states))

    @property
    def recorded(self) -> int:
        """For how many slots this agent has looked, at most an hour of them."""
        return min(SLOTS, self._slot - self._begun + 1)

    def runs(self, entry: str, slots: int, most: int) -> list[Run]:
        """A member's last `slots` as runs, counted from the oldest; the last one ends now.

        With more than `most` runs, which divides `slots`, neighbours are put together, the worst kept.
        """
        track = self._tracks.get(entry)
        if track is None:
            return [Run(0, slots, UNSEEN)]
        numbers = list(self._in_order(track.states)[-slots:])
        found = self._together(numbers, 1)
        if len(found) <= most:
            return found
        shades, share = [state.shade for state in self._states], slots // most
        parts = (numbers[at : at + share] for at in range(0, slots, share))
        # of equally bad ones the latest
        return self._together([max(reversed(part), key=shades.__getitem__) for part in parts], share)

    def lags(self, entry: str, slots: int, places: int) -> list[float | None]:
        """A member's largest lag in bytes in each of `places` parts of its last `slots`; None: unknown."""
        track = self._tracks.get(entry)
        if track is None:
            return [None] * places
        lags, share = self._in_order(track.lags)[-slots:], slots // places
        most = lags if share == 1 else [max(lags[at : at + share]) for at in range(0, slots, share)]
        return [None if lag < 0 else lag for lag in most]

    def _together(self, numbers: list[int], share: int) -> list[Run]:
        """Equal neighbours as one run; each number stands for `share` slots."""
        found, begin = [], 0
        for number, same in groupby(numbers):
            end = begin + share * sum(1 for _ in same)
            found.append(Run(begin, end, self._states[number]))
            begin = end
        return found

    def _in_order(self, ring: "array[Number]") -> "array[Number]":
        """From the oldest to now."""
        begin = (self._slot + 1) % SLOTS
        return ring[begin:] + ring[:begin]
