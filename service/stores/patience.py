"""Waiting that a late event loop does not cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

SLICES = 10

Result = TypeVar("Result")


class Wait:
    """Waits for something that tells when it is `over`, for so many seconds at most, all in all.

    The time is waited in slices, each of which lets the event loop look at its sockets. A loop that is late, because
    this process has too much to do, makes slices longer and not fewer: an answer that lies there unread is not late.

    Who waits goes on in the next round of the event loop. `asyncio.wait` would take one more.
    """

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[bool] = self._loop.create_future()
        self._slice, self._left = seconds / SLICES, SLICES
        self._timer = self._loop.call_later(self._slice, self._next)

    def over(self, _: object = None) -> None:
        """What was waited for is there, or will never be."""
        self._end(True)

    async def in_time(self) -> bool:
        """Whether it was over within the time."""
        try:
            return await self._over
        finally:
            self._timer.cancel()

    def _next(self) -> None:
        """What this round of the loop has read goes first."""
        self._left -= 1
        self._loop.call_soon(self._arm)

    def _arm(self) -> None:
        if not self._left:
            self._end(False)
        elif not self._over.done():
            self._timer = self._loop.call_later(self._slice, self._next)

    def _end(self, in_time: bool) -> None:
        if not self._over.done():
            self._over.set_result(in_time)


async def within(work: asyncio.Future[Any], seconds: float) -> bool:
    """Whether `work` is done after at most `seconds`, as `Wait` has it. It goes on if not."""
    if work.done():
        return True
    wait = Wait(seconds)
    work.add_done_callback(wait.over)
    return await wait.in_time() or work.done()


async def answer(work: Awaitable[Result], seconds: float) -> Result:
    """What `work` comes to after at most `seconds`, as in `within`. It is cancelled if it takes longer.

    Raises:
        TimeoutError: it takes longer.
    """
    task = asyncio.ensure_future(work)
    try:
        if not await within(task, seconds):
            raise TimeoutError(f"no answer within {seconds:g} s")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return task.result()
