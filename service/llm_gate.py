"""The one door to the LLM: admission, deadline and what to fall back for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing

import numpy as np
import structlog

from models.composer import Question
from models.engines.base import LLMEngine
from models.errors import OverloadedError
from models.writing import Draft, write
from service.metrics import Metrics
from service.outcome import Fallback

logger = structlog.get_logger(__name__)


class FallbackError(Exception):
    """The LLM did not answer; `reason` says why. Never leaves the use cases."""

    def __init__(self, reason: Fallback) -> None:
        super().__init__(reason)
        self.reason = reason


class LLMGate:
    """Asks the LLM within limits.

    Args:
        engine: the LLM.
        executor: composes prompts.
        metrics: stages, shed work.
        max_inflight: how many may ask at a time.
    """

    def __init__(self, engine: LLMEngine, executor: Executor, metrics: Metrics, max_inflight: int) -> None:
        self._engine = engine
        self._executor = executor
        self._metrics = metrics
        self._max_inflight = max_inflight
        self._arrivals: list[float] = []

    def load(self) -> tuple[int, float]:
        """How many requests are at the LLM, and how long the oldest has been there, in seconds."""
        now = time.perf_counter()
        return len(self._arrivals), max((now - arrival for arrival in self._arrivals), default=0.0)

    async def choose(self, compose: Callable[[], Question], seconds: float) -> np.ndarray:
        """The (K,) log-probabilities of the choices of a question.

        Args:
            compose: makes the question; runs in the executor.
            seconds: time for all of it.

        Raises:
            FallbackError: the LLM is late, down or has too much to do.
        """
        arrival = self._admit(seconds)
        try:
            async with asyncio.timeout(seconds):
                with self._metrics.stage("prompt"):
                    question = await asyncio.get_running_loop().run_in_executor(self._executor, compose)
                with self._metrics.stage("score"):
                    logits = await self._engine.score(question.prompt, question.trie)
                    log_probs = question.log_probs(logits)
        except Exception as error:
            raise self._fallback(error) from error
        finally:
            self._arrivals.remove(arrival)
        self._metrics.candidates_scored.inc(len(log_probs))
        return log_probs

    async def write(self, compose: Callable[[], Draft], max_tokens: int, seconds: float) -> AsyncGenerator[str, None]:
        """What the LLM makes of a draft, piece by piece, see `models.writing`. Closing the iterator frees the LLM.

        Raises:
            FallbackError: as `choose`; pieces may have been given before.
        """
        arrival = self._admit(seconds)
        due = arrival + seconds
        try:
            with self._metrics.stage("explain"):
                draft = await asyncio.get_running_loop().run_in_executor(self._executor, compose)
                async with aclosing(write(self._engine, draft, max_tokens)) as pieces:
                    while True:
                        async with asyncio.timeout(due - time.perf_counter()):
                            piece = await anext(pieces, None)
                        if piece is None:
                            break
                        yield piece
        except Exception as error:
            raise self._fallback(error) from error
        finally:
            self._arrivals.remove(arrival)

    def _admit(self, seconds: float) -> float:
        """Take a place; says since when it is taken."""
        if seconds <= 0:
            raise FallbackError("timeout")
        if not self._engine.healthy:
            raise FallbackError("llm_error")
        if len(self._arrivals) >= self._max_inflight:
            self._metrics.shed.labels("llm_inflight").inc()
            raise FallbackError("overload")
        self._arrivals.append(time.perf_counter())
        return self._arrivals[-1]

    def _fallback(self, error: Exception) -> FallbackError:
        """Whatever an engine does wrong, the answer goes on without it."""
        match error:
            case TimeoutError():
                return FallbackError("timeout")
            case OverloadedError():
                self._metrics.shed.labels("llm_queue").inc()
                return FallbackError("overload")
        logger.error("llm_failed", error=str(error), exc_info=error)
        return FallbackError("llm_error")
