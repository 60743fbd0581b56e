"""Closed-loop load: so many clients, each with its next question as soon as it has its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

Question = TypeVar("Question")


@dataclass
class Run:
    """What was measured.

    Attributes:
        seconds: wall time of all rounds.
        latencies: seconds of every answer.
        rates: answers a second, of each round.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def add(self, seconds: float, latencies: Sequence[float]) -> None:
        """Count one round in."""
        self.seconds += seconds
        self.latencies += latencies
        self.rates.append(len(latencies) / seconds)

    def summary(self) -> dict[str, float]:
        """Median rate over the rounds, and latencies in milliseconds."""
        p50, p99 = np.percentile(self.latencies, [50, 99]) * 1e3
        return {
            "per_second": round(float(np.median(self.rates)), 2),
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
            "answers": len(self.latencies),
        }


async def closed_loop(
    run: Run, concurrency: int, questions: Sequence[Question], answer: Callable[[Question], Awaitable[object]]
) -> None:
    """One round: `concurrency` clients work off `questions`."""
    waiting = list(reversed(questions))
    latencies: list[float] = []

    async def client() -> None:
        while waiting:
            question = waiting.pop()
            started = time.perf_counter()
            await answer(question)
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    run.add(time.perf_counter() - started, latencies)
