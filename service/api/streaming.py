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

    Raises:
        ClientGoneError: it left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("the client closed the connection")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
