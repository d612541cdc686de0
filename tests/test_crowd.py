"""The bound on connections, with connections that are only remembered."""

import asyncio

import pytest

from healthagent import crowd
from healthagent.crowd import Crowd


class Line(asyncio.Transport):
    """A transport that knows whether it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    @property
    def cut(self) -> bool:
        return self.ended.is_set()

    def abort(self) -> None:
        self.ended.set()


class Guest:
    def __init__(self) -> None:
        self.line = Line()
        self.transport: asyncio.Transport | None = self.line
        self.busy = False

    def unanswered(self) -> tuple[int, bytes] | None:
        return None


async def crowd_of(most: int, *guests: Guest) -> Crowd[Guest]:
    crowd: Crowd[Guest] = Crowd(most, asyncio.get_running_loop())
    for guest in guests:
        crowd.admit(guest)
    return crowd


async def test_as_many_as_are_allowed_stay() -> None:
    first, second = Guest(), Guest()
    made = await crowd_of(2, first, second)
    assert list(made) == [first, second]
    assert not first.line.cut


async def test_one_more_cuts_the_one_that_waited_longest() -> None:
    first, second, third = Guest(), Guest(), Guest()
    made = await crowd_of(2, first, second, third)
    assert list(made) == [second, third]
    assert [guest.line.cut for guest in (first, second, third)] == [True, False, False]


async def test_who_was_served_waits_anew() -> None:
    first, second = Guest(), Guest()
    made = await crowd_of(2, first, second)
    made.served(first)
    made.admit(Guest())
    assert second.line.cut
    assert not first.line.cut


async def test_who_has_left_is_neither_counted_nor_cut() -> None:
    first = Guest()
    made = await crowd_of(1, first)
    made.forget(first)
    made.served(first)  # its last answer may be noted after it left
    assert len(made) == 0
    made.admit(Guest())
    assert not first.line.cut


async def test_one_whose_connection_is_gone_already_makes_room() -> None:
    gone, new = Guest(), Guest()
    gone.transport = None
    made = await crowd_of(1, gone, new)
    assert list(made) == [new]


async def test_the_crowd_may_shrink_while_it_is_walked_through() -> None:
    made = await crowd_of(3, Guest(), Guest(), Guest())
    for guest in made:
        made.forget(guest)
    assert len(made) == 0


async def test_who_waits_too_long_is_cut_unless_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PATIENCE", 0.02)
    slow, busy = Guest(), Guest()
    made = await crowd_of(2, slow, busy)
    made.exempt(busy)
    reaper = asyncio.create_task(made.reap())
    async with asyncio.timeout(5):
        await slow.line.ended.wait()
    reaper.cancel()
    assert list(made) == [busy]
    assert not busy.line.cut
