"""A late event loop is not a late answer."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.stores.patience import Wait, within

pytestmark = pytest.mark.anyio


async def test_what_never_comes_is_waited_for_as_long_as_was_said() -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert not await within(never, 0.02)
    assert not never.done()


@pytest.mark.parametrize("before", [0.0, 0.047])
async def test_what_lies_there_is_not_late_however_late_the_loop_is(before: float) -> None:
    """The answer is sent at once, but this process is busy for five times the patience before it looks, from the start
    or over the last slice.
    """
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

    async def ask() -> bytes:
        writer.write(b"?\n")
        return await reader.readline()

    asking = asyncio.ensure_future(ask())
    for _ in range(3):
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(before, time.sleep, 0.25)
    assert await within(asking, 0.05)
    assert asking.result() == b"!\n"
    writer.close()
    server.close()


async def test_who_waits_goes_on_in_the_next_round_of_the_event_loop() -> None:
    """Under load a round is as long as all requests that wait for it take together."""
    rounds, wait, loop = 0, Wait(5), asyncio.get_running_loop()

    def count() -> None:
        nonlocal rounds
        rounds += 1
        if not waiting.done():
            loop.call_soon(count)

    waiting = asyncio.ensure_future(wait.in_time())
    await asyncio.sleep(0)
    wait.over()
    loop.call_soon(count)
    assert await waiting
    assert rounds == 1


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"!\n")
    writer.close()
