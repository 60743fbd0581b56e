"""Waiting that a late event loop does not cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

SLICES = 10

Result = TypeVar("Result")


async def within(work: asyncio.Future[Any], seconds: float) -> bool:
    """Whether `work` is done after at most `seconds`, all in all. It goes on if not.

    The time is waited in slices, each of which lets the event loop look at its sockets. A loop that is late, because
    this process has too much to do, makes slices longer and not fewer: an answer that lies there unread is not late.
    """
    for _ in range(SLICES):
        done, _ = await asyncio.wait({work}, timeout=seconds / SLICES)
        if done:
            return True
    return False


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
