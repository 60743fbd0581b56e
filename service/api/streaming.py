"""Server-sent events, and clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel

from service.api.errors import ClientGoneError

Result = TypeVar("Result")


def event(name: str, data: BaseModel) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"


def arrival(request: Request) -> float:
    """When the whole request was there, in seconds of `time.perf_counter`: its time begins with that."""
    started: float = getattr(request.state, "received", request.state.started)
    return started


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client leaves.

    It runs in the task of who asks: one of its own would wait for the event loop twice more.

    Raises:
        ClientGoneError: it left.
    """
    asking = asyncio.current_task()
    assert asking is not None  # noqa: S101
    before, done, gone = asking.cancelling(), False, False

    def left(leaving: asyncio.Task[None]) -> None:
        nonlocal gone
        if not done and not leaving.cancelled():
            gone = asking.cancel()

    leaving = asyncio.ensure_future(_gone(request))
    leaving.add_done_callback(left)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone or asking.cancelling() > before + 1:
            raise
        raise ClientGoneError("the client closed the connection") from None
    finally:
        done = True
        leaving.cancel()
        if gone:
            asking.uncancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
