"""The HTTP server: uvicorn within bounds, and an end that balancers have time to notice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.api.backlog import backlog_of
from service.api.connections import Bounds, server_options
from service.api.pressure import Pressure
from service.runtime import Runtime
from service.settings import Settings


class LameDuckServer(uvicorn.Server):
    """Serves `app`. SIGTERM turns it into a lame duck first: not ready, but answering; then it drains and ends.

    A second signal, or Ctrl-C, skips the wait.

    Attributes:
        pressure: limits what comes in while requests wait for the event loop.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._runtime: Runtime = app.state.runtime
        self.pressure = Pressure(settings.max_requests)
        self._watch: asyncio.Task[None] | None = None
        bounds = Bounds.model_validate({name: getattr(settings, name) for name in Bounds.model_fields})
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=settings.shutdown_seconds,
                **server_options(bounds, self.pressure, self._runtime.metrics.turned_away),
            )
        )
        self._lame_duck_seconds = settings.lame_duck_seconds
        self._leaving_since: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self.pressure.backlog = backlog_of(each for server in self.servers for each in server.sockets)
        self._watch = asyncio.create_task(self.pressure.watch(), name="pressure")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().shutdown(sockets)
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        if sig == signal.SIGTERM and self._leaving_since is None and self._runtime.services is not None:
            self._leaving_since = time.monotonic()
            self._runtime.leaving = True
            self._captured_signals.append(sig)
            return
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn."""
        since = self._leaving_since
        if since is not None and time.monotonic() - since >= self._lame_duck_seconds:
            self.should_exit = True
        return await super().on_tick(counter)
