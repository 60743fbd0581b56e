"""An event loop whose clock jumps to the next event: hours of load in seconds, the same every time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen")
        self._loop.now += timeout
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Attributes: now: seconds since its birth, plus a thousand: no clock starts at 0."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self.now


class Inline(Executor):
    """Does the work where it is asked for."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def simulate(scenario: Coroutine[Any, Any, Result]) -> Result:
    """Run `scenario` to its end in simulated time."""
    loop = SimulatedLoop()
    try:
        result = loop.run_until_complete(scenario)
        left = asyncio.all_tasks(loop)
        if left:
            loop.run_until_complete(asyncio.wait(left))
        return result
    finally:
        loop.close()
