"""The process that hosts an engine: `python -m models.engines.host FD`, started by `models.engines.process`.

It ends when its socket does, or is killed some seconds later, with all that it started: it does not outlive who asks.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import structlog

from models.engines.base import LLMEngine
from models.engines.wire import (
    Alive,
    Answer,
    Batch,
    Cancel,
    Encode,
    Failed,
    Generate,
    Measure,
    Piece,
    Plan,
    Question,
    Refused,
    Score,
    Started,
    packed,
    portable,
    received,
)
from models.errors import AllmrecError, EngineError

logger = structlog.get_logger(__name__)

ALIVE_SECONDS = 1.0
LOOK_SECONDS = 0.05


async def host(connection: socket.socket) -> None:
    """Start the engine that is asked for and answer by it, until the other side is gone."""
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    try:
        plan: Plan = await received(reader)
    except EOFError:
        return
    plan.prepare()

    def tell(message: object) -> None:
        writer.write(packed(message))

    try:
        await _serve(plan, reader, tell)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _serve(plan: Plan, reader: asyncio.StreamReader, tell: Callable[[object], None]) -> None:
    engine = plan.kind(plan.config)
    if hasattr(engine, "on_batch"):
        engine.on_batch = lambda requests: tell(Batch(requests))
    living = asyncio.create_task(_live(engine, tell))
    under_way: dict[int, asyncio.Task[None]] = {}
    try:
        while True:
            message = await received(reader)
            if isinstance(message, Cancel):
                if message.number in under_way:
                    under_way[message.number].cancel()
            else:
                work = under_way[message.number] = asyncio.create_task(_answer(engine, plan, message, tell))
                work.add_done_callback(partial(_forget, under_way, message.number))
    except EOFError:
        _end_soon(plan.end_seconds)
    finally:
        tasks = [living, *under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await engine.close()


def _end_soon(seconds: float) -> None:
    """Kill this process, and all that it started, unless it ends by itself: there is nobody else who would."""
    if os.getpgrp() == os.getpid():
        timer = threading.Timer(seconds, os.killpg, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()


async def _live(engine: LLMEngine, tell: Callable[[object], None]) -> None:
    """Start the engine, then say how it is."""
    try:
        await engine.start()
    except Exception as error:
        if not isinstance(error, AllmrecError):
            logger.exception("llm_engine_start_failed")
        tell(Refused(portable(error)))
        return
    # What is loaded stays: the garbage collector need not look at it.
    gc.collect()
    gc.freeze()
    tell(Started(engine.fingerprint))
    healthy, told = True, asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = asyncio.get_running_loop().time()
        if engine.healthy != healthy or now - told >= ALIVE_SECONDS:
            healthy, told = engine.healthy, now
            tell(Alive(healthy))


def _forget(under_way: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    del under_way[number]


async def _answer(engine: LLMEngine, plan: Plan, message: Question, tell: Callable[[object], None]) -> None:
    try:
        tell(Answer(message.number, await _value(engine, plan, message, tell)))
    except asyncio.CancelledError:
        tell(Failed(message.number, EngineError("the LLM engine gave the request up")))
        raise
    except Exception as error:
        if not isinstance(error, AllmrecError):
            logger.exception("llm_request_failed")
        tell(Alive(engine.healthy))  # first: who is told of the failure then asks how the engine is
        tell(Failed(message.number, portable(error)))


async def _value(engine: LLMEngine, plan: Plan, message: Question, tell: Callable[[object], None]) -> Any:
    match message:
        case Score(_, prompt, trie, due):
            return await engine.score(prompt, trie, due)
        case Encode(_, prompt, places, due):
            return await engine.encode(prompt, places, due)
        case Generate(number, prompt, max_tokens, stop):
            async with aclosing(engine.generate(prompt, max_tokens, stop)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    tell(Piece(number, piece))
            return None
        case Measure():
            return plan.measure()


def main() -> None:
    """Host the engine that is asked for on the socket of this number."""
    # Who asks says when to end: it drains first. A handler, as what is ignored stays so in the programs that it starts.
    signal.signal(signal.SIGTERM, lambda *_: None)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    asyncio.run(host(connection))


if __name__ == "__main__":
    main()
