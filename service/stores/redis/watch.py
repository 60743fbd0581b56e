"""Looks after a server in the background, so that a hang is noticed however little patience requests have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from service.stores.patience import within
from service.stores.redis.connect import Client

logger = structlog.get_logger(__name__)


class Watch:
    """Asks a server for a sign of life, again and again. It alone decides that a server is away.

    So no single command can: not one that the server refuses, not one of a connection that broke, and not one that came
    late because this process had too much to do.

    Args:
        name: of the server, in logs.
        client: with a connection of its own.
        interval: seconds between questions.
        patience: a server that takes longer hangs.
        on_state: called with whether the server is there, whenever that changes.

    Attributes:
        up: whether the server is there.
        on_down: what is called whenever it is found away, to end what waits for it.
    """

    def __init__(
        self, name: str, client: Client, interval: float, patience: float, on_state: Callable[[bool], None]
    ) -> None:
        self.up = True
        self.on_down: list[Callable[[], None]] = []
        self._name = name
        self._client = client
        self._interval = interval
        self._patience = patience
        self._on_state = on_state
        self._look = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, and from now on in the background."""
        await self._note()
        self._watching = asyncio.create_task(self._watch(), name=f"watch-{self._name}")

    def look(self) -> None:
        """Look now: somebody had trouble."""
        self._look.set()

    async def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._client.aclose()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval / 10)  # no tight loop, whatever trouble there is
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._look.wait()
            self._look.clear()
            await self._note()

    async def _note(self) -> None:
        was_up, trouble = self.up, await self._trouble()
        self.up = trouble is None
        self._on_state(self.up)
        if trouble is not None:
            for end in self.on_down:
                end()
        if self.up and not was_up:
            logger.info("redis_up", server=self._name)
        elif was_up and not self.up:
            logger.warning("redis_down", server=self._name, error=trouble)

    async def _trouble(self) -> str | None:
        """What is wrong with the server; nothing if it answers."""
        ping = asyncio.ensure_future(self._client.ping())
        try:
            if not await within(ping, self._patience):
                return f"no answer within {self._patience} s"
        finally:
            ping.cancel()
            await asyncio.gather(ping, return_exceptions=True)
        error = ping.exception()
        return None if error is None else str(error) or type(error).__name__
