"""Looks after a server in the background, so that a hang is noticed however little patience requests have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisClusterException, RedisError

from models.errors import ConfigError
from service.stores.patience import answer
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
        on_state: called with whether the server is there, after every question.
        fits: asked about a server that was not there before; it raises `ConfigError` of one that does not fit. Such a
            one is away, until it fits. It waits for no answer longer than `patience`: nobody else looks meanwhile.

    Attributes:
        up: whether the server is there.
        misfit: why a server that answers does not fit.
        on_down: what is called whenever it is found away, to end what waits for it.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        interval: float,
        patience: float,
        on_state: Callable[[bool], None],
        fits: Callable[[Client], Awaitable[None]] | None = None,
    ) -> None:
        self.up = True
        self.misfit: ConfigError | None = None
        self.on_down: list[Callable[[], None]] = []
        self._name = name
        self._client = client
        self._interval = interval
        self._patience = patience
        self._on_state = on_state
        self._fits = fits
        self._to_check = True
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
        was_up, said = self.up, self.misfit
        trouble = await self._trouble()
        self.up = trouble is None
        self._to_check = not self.up
        self._on_state(self.up)
        if trouble is not None:
            for end in self.on_down:
                end()
        if self.up and not was_up:
            logger.info("redis_up", server=self._name)
        elif was_up and not self.up:
            logger.warning("redis_down", server=self._name, error=trouble)
        if self.misfit is not None and str(self.misfit) != str(said):
            logger.error("redis_does_not_fit", server=self._name, remedy=str(self.misfit))

    async def _trouble(self) -> str | None:
        """What is wrong with the server; nothing if it answers."""
        try:
            await answer(self._client.ping(), self._patience)
            if self._to_check and self._fits is not None:
                self.misfit = None
                await self._fits(self._client)
        except ConfigError as error:
            self.misfit = error
            return str(error)
        except (RedisError, RedisClusterException, OSError) as error:  # a timeout is an OSError
            return str(error) or type(error).__name__
        return None
