"""Waiting that a late event loop does not cut short."""

from __future__ import annotations

import asyncio
from typing import Any

SLICES = 10


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
