"""HTTP load on a running service. Imports little, so that a process of its own is cheap."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from benchmarks.load import Run, closed_loop


class Client:
    """The least of an HTTP client: one keep-alive connection for each caller."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def connect(self, count: int) -> None:
        """Open connections ahead of the first request."""
        self._idle += [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(count)]

    async def recommend(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to `POST /recommend`, which must be by the LLM."""
        _, answer = await self.ask("POST", "/recommend", {**body, "timeout_ms": 60_000})
        if answer.get("ranker") != "llm":
            raise RuntimeError(f"the service did not answer by the LLM: {answer}")
        return answer

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and content of any answer."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        )
        writer.write(head.encode() + b"\r\n\r\n" + content)
        answer_head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer_head.split("content-length:")[1].split("\r\n")[0])
        answer: dict[str, Any] = json.loads(await reader.readexactly(length))
        self._idle.append((reader, writer))
        return int(answer_head.split(" ", 2)[1]), answer

    def close(self) -> None:
        """Hang up."""
        for _, writer in self._idle:
            writer.close()


def saturate(port: int, concurrency: int, bodies: Sequence[dict[str, Any]]) -> tuple[float, list[float]]:
    """Ask all `bodies`, `concurrency` at a time: the wall time in seconds and that of every answer."""

    async def run() -> Run:
        client, measured = Client(port), Run()
        await client.connect(concurrency)
        await closed_loop(measured, concurrency, bodies, client.recommend)
        client.close()
        return measured

    measured = asyncio.run(run())
    return measured.seconds, measured.latencies


def arrive(port: int, rate: float, connections: int, bodies: Sequence[dict[str, Any]]) -> list[float]:
    """Ask `bodies` at random times, `rate` a second: the seconds that each answer took, in their order."""
    times = np.cumsum(np.random.default_rng(0).exponential(1 / rate, len(bodies)))

    async def run() -> list[float]:
        client = Client(port)
        await client.connect(connections)

        async def one(body: dict[str, Any], at: float) -> float:
            await asyncio.sleep(at)
            started = time.perf_counter()
            await client.recommend(body)
            return time.perf_counter() - started

        seconds = list(await asyncio.gather(*(one(body, at) for body, at in zip(bodies, times, strict=True))))
        client.close()
        return seconds

    return asyncio.run(run())


@dataclass(frozen=True)
class Stream:
    """Requests at random times.

    Attributes:
        rate: a second.
        seconds: how long.
        bodies: taken in turn, with `timeout_ms` put in; explanations of `user_ids` if there are none.
        timeout_ms: of each.
        user_ids: to be explained.
    """

    rate: float
    seconds: float
    bodies: Sequence[dict[str, Any]] = ()
    timeout_ms: int = 1000
    user_ids: Sequence[str] = ()


@dataclass(frozen=True)
class Seen:
    """What became of one request: when it was sent, how long it took, and who answered.

    `status` is 0 where the connection was refused, cut or never made: no answer at all.
    """

    at: float
    seconds: float
    status: int
    by: str
    fallback: str | None


def open_loop(port: int, streams: Sequence[Stream]) -> list[list[Seen]]:
    """Send all `streams` at once, whatever becomes of the requests before."""

    async def run() -> list[list[Seen]]:
        client = Client(port)
        seen = await asyncio.gather(*(_send(client, stream, seed) for seed, stream in enumerate(streams)))
        client.close()
        return list(seen)

    return asyncio.run(run())


async def _send(client: Client, stream: Stream, seed: int) -> list[Seen]:
    rng = np.random.default_rng(seed)
    begun, seen = time.perf_counter(), list[Seen]()

    async def asked(number: int) -> tuple[int, dict[str, Any]]:
        if stream.bodies:
            body = {**stream.bodies[number % len(stream.bodies)], "timeout_ms": stream.timeout_ms}
            return await client.ask("POST", "/recommend", body)
        return await client.ask(
            "GET", f"/explain/genre?user_id={quote(stream.user_ids[number % len(stream.user_ids)])}"
        )

    async def one(number: int, at: float) -> None:
        try:
            status, answer = await asked(number)
        except (OSError, asyncio.IncompleteReadError):
            status, answer = 0, {}
        by = str(answer.get("ranker", answer.get("sentence_source")))
        seen.append(Seen(at, time.perf_counter() - begun - at, status, by, answer.get("fallback")))

    async with asyncio.TaskGroup() as group:
        at, number = 0.0, 0
        while (at := at + rng.exponential(1 / stream.rate)) < stream.seconds:
            await asyncio.sleep(max(0.0, at - (time.perf_counter() - begun)))
            group.create_task(one(number, at))
            number += 1
    return seen
