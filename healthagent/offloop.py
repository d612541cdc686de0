"""Blocking calls beside the event loop, in threads that never hold up the end of the process.

The executor of asyncio joins its threads at exit: a resolver or a disk that hangs would
then hang the agent's own shutdown. A daemon thread is simply left behind.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
MOST = 16  # threads of one lane at once; a call beyond waits for one to end, inside its caller's budget

_free: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = WeakKeyDictionary()


async def call(function: Callable[[], T], lane: str) -> T:
    """Run a blocking function in a thread of its own and return or raise what it does.

    Calls of different lanes never wait for each other: a resolver that hangs must not hold up the disk.
    """
    loop = asyncio.get_running_loop()
    free = _free.setdefault(loop, {}).setdefault(lane, asyncio.Semaphore(MOST))
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        free.release()
        if not done.cancelled():
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # T may itself include None

    def work() -> None:
        result, failed = None, None
        try:
            result = function()
        except BaseException as error:  # carried to the caller, whatever it is
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, failed)

    await free.acquire()
    try:
        threading.Thread(target=work, daemon=True, name=f"{lane} {function!r:.40}").start()
    except RuntimeError as error:  # the kernel gives no more threads
        free.release()
        raise OSError(f"no thread for {lane}: {error}") from error
    return await done
