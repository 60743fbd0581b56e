"""A service in a process of its own, made to be killed: with a clock and an LLM that levers reach."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from models.engines.base import LLMEngine
from models.errors import EngineError
from models.prompts.layout import Prompt
from models.scoring.choices import ChoiceTrie
from service.app import create_app, create_engine
from service.server import LameDuckServer
from service.settings import Settings
from tests.service.endurance.levers import CLOCK, EngineState, Levers

LOOK_SECONDS = 0.02


class TroubledEngine:
    """An engine that dies and hangs as the levers say."""

    def __init__(self, engine: LLMEngine, levers: Levers) -> None:
        self._engine, self._levers = engine, levers

    def __getattr__(self, name: str) -> Any:
        """All else is the engine's own."""
        return getattr(self._engine, name)

    @property
    def healthy(self) -> bool:
        """See `LLMEngine.healthy`."""
        return self._levers.engine is not EngineState.DEAD and self._engine.healthy

    async def score(self, prompt: Prompt, trie: ChoiceTrie, due: float | None = None) -> list[np.ndarray]:
        """See `LLMEngine.score`."""
        await self._trouble()
        logits = await self._engine.score(prompt, trie, due)
        await self._trouble()
        return logits

    async def generate(self, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()) -> AsyncIterator[str]:
        """See `LLMEngine.generate`."""
        async with aclosing(self._engine.generate(prompt, max_tokens, stop)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                await self._trouble()
                yield piece

    async def _trouble(self) -> None:
        while self._levers.engine is EngineState.HANGS:
            await asyncio.sleep(LOOK_SECONDS)
        if self._levers.engine is EngineState.DEAD:
            raise EngineError("the LLM is dead")


def serve(settings: dict[str, Any], levers_path: Path, log: Path, told: Connection) -> None:
    """Serve until killed; tell the port once ready, or what went wrong.

    Args:
        settings: of the service.
        levers_path: of the levers.
        log: where it logs.
        told: who waits for the port.
    """
    _die_with_parent()
    levers = CLOCK.levers = Levers(levers_path)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    listener = socket.create_server(("127.0.0.1", 0))

    def fail(error: BaseException) -> None:
        told.send(str(error))
        server.should_exit = True

    made = Settings(_env_file=None, **settings)  # type: ignore[call-arg]
    app = create_app(
        made,
        engine_factory=lambda *arguments: TroubledEngine(create_engine(*arguments), levers),  # type: ignore[arg-type,return-value]
        on_ready=lambda _: told.send(listener.getsockname()[1]),
        on_failure=fail,
    )
    server = LameDuckServer(app, made)
    server.run(sockets=[listener])


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
