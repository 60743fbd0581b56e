"""HTTP load on a running service. Imports little, so that a process of its own is cheap."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

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
        """The answer to `POST /recommend`."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        content = json.dumps({**body, "timeout_ms": 60_000}).encode()
        head = (
            f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        )
        writer.write(head.encode() + b"\r\n\r\n" + content)
        answer_head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer_head.split("content-length:")[1].split("\r\n")[0])
        answer: dict[str, Any] = json.loads(await reader.readexactly(length))
        self._idle.append((reader, writer))
        if answer.get("ranker") != "llm":
            raise RuntimeError(f"the service did not answer by the LLM: {answer}")
        return answer

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
