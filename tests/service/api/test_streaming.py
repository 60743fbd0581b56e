"""Work that ends when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from fastapi import Request

from service.api.errors import ClientGoneError
from service.api.streaming import unless_gone

pytestmark = pytest.mark.anyio


def request_of(left: asyncio.Event) -> Request:
    """One whose client is there until `left`."""
    return watched_request_of(left)[0]


def watched_request_of(left: asyncio.Event) -> tuple[Request, list[asyncio.Task[None]]]:
    """One whose client is there until `left`, and the tasks that have watched it."""
    watchers = list[asyncio.Task[None]]()

    async def receive() -> dict[str, str]:
        watcher = asyncio.current_task()
        assert watcher is not None
        watchers.append(watcher)
        await left.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive), watchers


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def forever(ended: list[str]) -> str:
    try:
        async with asyncio.timeout(30):
            await asyncio.Event().wait()
    finally:
        ended.append("ended")
    return ""


async def test_the_answer_is_the_work_s_and_nobody_watches_any_more() -> None:
    request, watchers = watched_request_of(asyncio.Event())

    async def soon() -> str:
        await settled()
        return "answer"

    assert await unless_gone(request, soon()) == "answer"
    await settled()
    (watcher,) = watchers
    assert watcher.cancelled()


async def test_work_ends_when_the_client_leaves_and_the_task_goes_on() -> None:
    left, ended = asyncio.Event(), list[str]()
    asyncio.get_running_loop().call_later(0.01, left.set)
    with pytest.raises(ClientGoneError):
        await unless_gone(request_of(left), forever(ended))
    task = asyncio.current_task()
    assert ended == ["ended"]
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # nothing is left that would cancel it


async def test_a_client_that_leaves_as_the_work_ends_disturbs_nothing_after_it() -> None:
    left = asyncio.Event()

    async def leaving() -> str:
        left.set()
        return "answer"

    assert await unless_gone(request_of(left), leaving()) == "answer"
    await settled()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_work_that_ends_well_though_it_is_cancelled_leaves_nothing_behind() -> None:
    left = asyncio.Event()

    async def stubborn() -> str:
        left.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "answer"

    assert await unless_gone(request_of(left), stubborn()) == "answer"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("first", ["client", "server"])
async def test_who_is_cancelled_from_elsewhere_stays_cancelled_though_the_client_leaves_too(first: str) -> None:
    """A server that shuts down must not take it for an answer."""
    left, ended = asyncio.Event(), list[str]()

    async def ask() -> str:
        return await unless_gone(request_of(left), forever(ended))

    asking = asyncio.ensure_future(ask())
    await settled()
    ends: list[Callable[[], object]] = [left.set, asking.cancel]
    for end in ends if first == "client" else reversed(ends):
        end()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended == ["ended"]


async def test_what_goes_wrong_in_the_work_is_told() -> None:
    async def wrong() -> str:
        raise ValueError("wrong")

    work: Awaitable[str] = unless_gone(request_of(asyncio.Event()), wrong())
    with pytest.raises(ValueError, match="wrong"):
        await work
