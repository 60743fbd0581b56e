"""The one door to the LLM: admission, deadline and what to fall back for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Literal, get_args

import numpy as np
import structlog

from models.composer import Asked
from models.engines.base import LLMEngine
from models.errors import OverloadedError
from models.writing import Draft, write
from service.admission import Clock, Lane, RefusedError
from service.metrics import Metrics
from service.outcome import Fallback

logger = structlog.get_logger(__name__)

Work = Literal["recommend", "genres", "items", "effects", "sentence"]
WORK: tuple[Work, ...] = get_args(Work)


class FallbackError(Exception):
    """The LLM did not answer; `reason` says why. Never leaves the use cases."""

    def __init__(self, reason: Fallback) -> None:
        super().__init__(reason)
        self.reason = reason


class LLMGate:
    """Asks the LLM within limits. Kinds of work have lanes of their own, so that none starves another.

    Args:
        engine: the LLM.
        executor: composes prompts.
        metrics: stages, shed work.
        max_inflight: how many of one kind may wait or be under way.
        clock: tells seconds, as the engine's clock does.
    """

    def __init__(
        self,
        engine: LLMEngine,
        executor: Executor,
        metrics: Metrics,
        max_inflight: int,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._engine = engine
        self._executor = executor
        self._metrics = metrics
        self._clock = clock
        self._lanes = {work: Lane(engine.depth, max_inflight, clock) for work in WORK}

    def load(self) -> tuple[int, float]:
        """How many requests are at the LLM, and how long the oldest of them has been there, in seconds."""
        lanes = self._lanes.values()
        return sum(lane.waiting + lane.under_way for lane in lanes), max(lane.age for lane in lanes)

    async def warm_up(self, questions: Sequence[Asked]) -> None:
        """Ask once to have it fast, and once more to know how fast."""
        await self._answer(questions, None)
        started = self._clock()
        await self._answer(questions, None)
        now = self._clock()
        for work in ("recommend", "genres", "items"):
            self._lanes[work].pace.took(now - started, now)

    async def ask(
        self, compose: Callable[[], Sequence[Asked]], seconds: float, work: Work = "recommend"
    ) -> list[np.ndarray]:
        """What the LLM says to each question, see `Asked.answer`.

        Args:
            compose: makes the questions; runs in the executor.
            seconds: time for all of it.
            work: what it is for.

        Raises:
            FallbackError: the LLM is late, down or has too much to do, or would be late.
        """
        self._require(seconds)
        lane, due = self._lanes[work], self._clock() + seconds
        try:
            async with asyncio.timeout(seconds), lane.place(due) as place:
                with self._metrics.stage("prompt"):
                    questions = await asyncio.get_running_loop().run_in_executor(self._executor, compose)
                with self._metrics.stage("score"):
                    await lane.turn(place)
                    answers = await self._answer(questions, due)
        except Exception as error:
            raise self._fallback(error) from error
        self._metrics.candidates_scored.inc(sum(question.candidates for question in questions))
        return answers

    async def _answer(self, questions: Sequence[Asked], due: float | None) -> list[np.ndarray]:
        """All of them at once: an engine with several workers takes the time of the longest."""
        asked = [asyncio.ensure_future(question.answer(self._engine, due)) for question in questions]
        try:
            return await asyncio.gather(*asked)
        finally:
            for one in asked:
                one.cancel()

    async def write(self, compose: Callable[[], Draft], max_tokens: int, seconds: float) -> AsyncGenerator[str, None]:
        """What the LLM makes of a draft, piece by piece, see `models.writing`. Closing the iterator frees the LLM.

        Raises:
            FallbackError: as `ask`; pieces may have been given before.
        """
        self._require(seconds)
        lane, due = self._lanes["sentence"], self._clock() + seconds
        try:
            with self._metrics.stage("explain"):
                async with lane.place(due) as place:
                    async with asyncio.timeout(due - self._clock()):
                        draft = await asyncio.get_running_loop().run_in_executor(self._executor, compose)
                        await lane.turn(place)
                    async with aclosing(write(self._engine, draft, max_tokens)) as pieces:
                        while True:
                            async with asyncio.timeout(due - self._clock()):
                                piece = await anext(pieces, None)
                            if piece is None:
                                break
                            yield piece
        except Exception as error:
            raise self._fallback(error) from error

    def _require(self, seconds: float) -> None:
        if seconds <= 0:
            raise FallbackError("timeout")
        if not self._engine.healthy:
            raise FallbackError("llm_error")

    def _fallback(self, error: Exception) -> FallbackError:
        """Whatever an engine does wrong, the answer goes on without it."""
        match error:
            case TimeoutError():
                return FallbackError("timeout")
            case RefusedError(waiting=False):
                return FallbackError("timeout")
            case RefusedError():
                self._metrics.shed.labels("llm_inflight").inc()
                return FallbackError("overload")
            case OverloadedError():
                self._metrics.shed.labels("llm_queue").inc()
                return FallbackError("overload")
        logger.error("llm_failed", error=str(error), exc_info=error)
        return FallbackError("llm_error")
