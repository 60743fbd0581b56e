"""What is refused or falls back leaves nothing behind, whoever asks, and for whatever."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from itertools import count, permutations
from pathlib import Path

import numpy as np
import pytest

from service.server import LameDuckServer
from tests.service.api.hosting import on_a_socket
from tests.service.world import FakeEngine, World, fake_engine, overloaded

REQUESTS = 20
"""Of each kind in a storm."""
STORMS = 7
KEPT_USERS = 8
"""Fewer than ask in a storm, so that what is bounded is full after the first."""
AN_HOUR = 3600.0
CONTAINERS = (list, dict, set, deque, OrderedDict)
PATIENCE_SECONDS = 60.0


class Weather:
    """Storms over a service that takes one request at a time. No two requests are the same.

    Args:
        world: whose items are in histories.
        port: where the service listens.
        server: that listens.
        engine: its LLM.
    """

    def __init__(self, world: World, port: int, server: LameDuckServer, engine: FakeEngine) -> None:
        self._port, self._server, self._engine = port, server, engine
        self._numbers, self._histories = count(), permutations(world.item_ids[:9], 4)
        self._loop = server.servers[0].get_loop()
        self._calm = len(asyncio.all_tasks(self._loop))

    def storm(self, patch: pytest.MonkeyPatch) -> int:
        """One with all kinds of requests. Returns how many things Python holds when all is quiet again."""
        with closing(self._connection()) as client:
            for _ in range(REQUESTS):
                assert self._ask(client, timeout_ms=1) == (200, "timeout")
            with patch.context() as during:
                during.setattr(self._engine, "failure", overloaded())
                for _ in range(REQUESTS):
                    assert self._ask(client) == (200, "overload")
            with self._full():
                for _ in range(REQUESTS):
                    assert self._ask(client) == (503, None)
            with patch.context() as during:
                during.setattr(self._server.pressure, "admits", lambda: False)
                for _ in range(REQUESTS):
                    assert self._ask(client) == (503, None)
        _wait(lambda: self._idle() and not self._server.server_state.connections)
        return _things()

    def _connection(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)

    def _ask(self, client: HTTPConnection, **more: int) -> tuple[int, str | None]:
        """Status, and why the LLM did not rank."""
        self._send(client, **more)
        response = client.getresponse()
        return response.status, json.loads(response.read()).get("fallback")

    def _send(self, client: HTTPConnection, **more: int) -> None:
        number = next(self._numbers)
        history = [{"item_id": item_id} for item_id in next(self._histories)]
        candidates = [f"unheard{number}", "i10", "i11"]
        body = {"user_id": f"stranger{number}", "history": history, "candidates": candidates, **more}
        headers = {"Content-Type": "application/json", "X-Request-ID": f"r{number}"}
        client.request("POST", "/recommend", json.dumps(body), headers)

    @contextmanager
    def _full(self) -> Iterator[None]:
        """Somebody waits for the LLM, and hangs up in the end."""
        calls, self._engine.seconds = self._engine.calls, AN_HOUR
        with closing(self._connection()) as waiting:
            self._send(waiting)
            _wait(lambda: self._engine.calls > calls)
            yield
        self._engine.seconds = 0.0
        _wait(self._idle)

    def _idle(self) -> bool:
        """Whether no work goes on that did not before all storms."""
        return len(asyncio.all_tasks(self._loop)) <= self._calm


def _things() -> int:
    """All objects, and all that is in containers: numbers and words are no objects to the collector, nor are dicts
    of nothing else.
    """
    gc.collect()
    objects = gc.get_objects()
    held = {id(each): each for each in (*objects, *gc.get_referents(*objects)) if type(each) in CONTAINERS}
    return len(objects) + sum(map(len, held.values()))


def _wait(until: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not until():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_what_storms_leave_behind_does_not_grow(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were one thing left by each request of one kind, there would be so many more after every storm."""
    engine = fake_engine(world)
    settings = world.settings_for(tmp_path, max_requests=1, user_cache_size=KEPT_USERS)
    with on_a_socket(settings, engine) as (port, server):
        monkeypatch.setattr(server.pressure, "look", lambda: None)  # the machine's own load refuses nobody
        monkeypatch.setattr(server.pressure, "share", 0.0)
        weather = Weather(world, port, server, engine)
        things = [weather.storm(monkeypatch) for _ in range(STORMS)]
    assert min(np.diff(things)[1:]) < REQUESTS / 2
