"""Blocking calls beside the event loop: bounded, never waited for at the end, one lane apart from another."""

import asyncio
import subprocess
import sys
import threading

import pytest

from healthagent.offloop import MOST, call
from tests.bed.gate import Gate


async def test_a_result() -> None:
    assert await call(lambda: 42, "disk") == 42


async def test_an_error_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        await call(lambda: 1 // 0, "disk")


async def test_it_is_not_the_thread_of_the_loop() -> None:
    assert await call(threading.get_ident, "disk") != threading.get_ident()


async def test_the_loop_turns_meanwhile() -> None:
    with Gate() as gate:
        blocked = asyncio.create_task(call(gate.through(lambda: "done"), "names"))
        assert await call(lambda: "other", "names") == "other"
        assert not blocked.done()
        gate.open()
        assert await blocked == "done"


async def test_a_caller_with_a_deadline_leaves_in_time() -> None:
    with Gate() as gate, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await call(gate.through(lambda: None), "names")


async def test_calls_of_one_lane_are_bounded_and_hold_up_no_other() -> None:
    """A resolver that hangs must not keep the state file from being written."""
    with Gate() as gate:
        hanging = [asyncio.create_task(call(gate.through(lambda: 1), "names")) for _ in range(MOST + 1)]
        await asyncio.sleep(0)  # all have begun
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await call(lambda: 2, "names")
        assert sum(thread.name.startswith("names") for thread in threading.enumerate()) == MOST
        assert await call(lambda: 3, "disk") == 3
        gate.open()
        assert sum(await asyncio.gather(*hanging)) == MOST + 1
    assert await call(lambda: 4, "names") == 4


async def test_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MOST + 1):  # each gives its place back
            with pytest.raises(OSError, match="no thread for disk"):
                await call(lambda: None, "disk")
    assert await call(lambda: 1, "disk") == 1


def test_the_process_ends_while_a_call_hangs() -> None:
    """The executor of asyncio would wait for ever here."""
    code = (
        "import asyncio, time; from healthagent.offloop import call\n"
        "async def main():\n"
        "    asyncio.create_task(call(lambda: time.sleep(600), 'disk')); await asyncio.sleep(0)\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
