"""A call that blocks its thread until a test opens it: a resolver or a disk that hangs."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

LONGEST = 30.0  # seconds: a test that forgets to open it must still end


class Gate:
    """`with Gate() as gate: call(gate.through(function))`; opened at the end at the latest."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def through(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, behind the gate."""

        def waits(*arguments: Any, **keywords: Any) -> Any:
            self._open.wait(LONGEST)
            return function(*arguments, **keywords)

        return waits

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()
