"""A service on a socket: what only a real server does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from models.engines.base import LLMEngine
from service.app import create_app
from service.server import LameDuckServer
from service.settings import Settings


@contextmanager
def on_a_socket(settings: Settings, engine: LLMEngine) -> Iterator[tuple[int, LameDuckServer]]:
    """Port and server of a service whose LLM is `engine`."""
    ready = threading.Event()
    app = create_app(settings, engine_factory=lambda _settings, _llm: engine, on_ready=lambda _: ready.set())
    server = LameDuckServer(app, settings)
    server.config.port = 0
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(60)
        yield server.servers[0].sockets[0].getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join()
