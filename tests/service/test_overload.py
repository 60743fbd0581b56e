"""The gate above capacity, on a simulated clock: a scripted engine, Poisson arrivals, no real time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from models.composer import Question
from models.writing import Draft
from service.llm_gate import FallbackError, LLMGate, Work
from service.metrics import Metrics
from tests.service.simulated import Inline, simulate


class ScriptedEngine:
    """Serves so many at a time, first come first served, each in its time; work begun is not given back.

    Attributes:
        seconds: for one alone.
        slope: share of `seconds` that each further one under way adds: 0 is a batching GPU's dream.
        wasted: seconds spent on what nobody got.
    """

    tokenizer: Any = None
    token_size, context_length, fingerprint, healthy = 1, 1024, "scripted", True

    def __init__(self, workers: int, seconds: float, slope: float = 0.0, depth: int | None = None) -> None:
        self.seconds, self.slope = seconds, slope
        self.depth = 2 * workers if depth is None else depth
        self.wasted = 0.0
        self._room = asyncio.Semaphore(workers)
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def score(self, *_: Any) -> list[np.ndarray]:
        await self._work(1.0)
        return []

    async def generate(self, *_: Any) -> AsyncIterator[str]:
        for piece in (" it", " is", " good", "."):
            await self._work(0.25)
            yield piece

    async def _work(self, share: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._room:
            task = asyncio.create_task(self._run(share, done))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.shield(done)

    async def _run(self, share: float, done: asyncio.Future[None]) -> None:
        self._running += 1
        seconds = share * self.seconds * (1 + self.slope * (self._running - 1))
        await asyncio.sleep(seconds)
        self._running -= 1
        done.set_result(None)


class Nothing:
    candidates = 1

    async def answer(self, engine: Any, due: float | None = None) -> np.ndarray:
        await engine.score(None, None, due)
        return np.zeros(1)


@dataclass
class Outcome:
    at: float
    seconds: float
    fallback: str | None


async def load(
    gate: LLMGate, rate: float, seconds: float, timeout: float, work: Work = "recommend", seed: int = 0
) -> list[Outcome]:
    """Open loop: `rate` a second at random, whatever became of those before."""
    loop = asyncio.get_running_loop()
    rng = np.random.default_rng(seed)
    outcomes: list[Outcome] = []
    begun = loop.time()

    async def one() -> None:
        arrived = loop.time()
        fallback: str | None = None
        try:
            if work == "sentence":
                async for _ in gate.write(lambda: Draft(cast("Any", None), []), 10, timeout):
                    pass
            else:
                await gate.ask(lambda: [cast("Question", Nothing())], timeout, work)
        except FallbackError as error:
            fallback = error.reason
        outcomes.append(Outcome(arrived - begun, loop.time() - arrived, fallback))

    async with asyncio.TaskGroup() as group:
        while loop.time() < begun + seconds:
            group.create_task(one())
            await asyncio.sleep(rng.exponential(1 / rate))
    return outcomes


def gate_to(engine: ScriptedEngine, most: int = 64) -> LLMGate:
    return LLMGate(engine, Inline(), Metrics(), most, asyncio.get_running_loop().time)


def scored(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.fallback is None for outcome in outcomes)


ENGINES = {
    "two workers": (2, 0.1, 0.0, 4, 20.0),
    "a batching engine": (8, 0.05, 0.05, 16, 118.0),
    "an engine that says it is deeper than it is": (2, 0.1, 0.0, 64, 20.0),
}
"""Workers, seconds, slope, depth, and the rate that they can keep up."""


@pytest.mark.parametrize("multiple", [2, 5, 10])
@pytest.mark.parametrize("name", ENGINES)
def test_goodput_stays_at_its_peak_above_capacity(name: str, multiple: int) -> None:
    """Ten seconds at so many times the capacity: 90 % of the peak is scored, nobody is late, fallbacks come at once."""
    workers, seconds, slope, depth, capacity = ENGINES[name]
    timeout = 1.0

    async def scenario() -> list[Outcome]:
        gate = gate_to(ScriptedEngine(workers, seconds, slope, depth), 1000)
        await load(gate, capacity * multiple, 3, timeout)
        return await load(gate, capacity * multiple, 10, timeout, seed=1)

    outcomes = simulate(scenario())
    assert scored(outcomes) / 10 >= 0.9 * capacity
    assert np.percentile([outcome.seconds for outcome in outcomes], 99) <= timeout + 0.02
    fallbacks = [outcome for outcome in outcomes if outcome.fallback is not None]
    assert np.percentile([outcome.seconds for outcome in fallbacks], 90) <= 0.015
    assert {outcome.fallback for outcome in fallbacks} <= {"overload", "timeout"}


@pytest.mark.parametrize("timeout", [0.25, 5.0, 60.0])
def test_whatever_the_clients_patience(timeout: float) -> None:
    async def scenario() -> list[Outcome]:
        return await load(gate_to(ScriptedEngine(2, 0.1)), 60, 20, timeout)

    outcomes = simulate(scenario())
    assert scored(outcomes) / 20 >= 0.9 * 20 * (1 if timeout > 0.3 else 0.95)
    assert max(outcome.seconds for outcome in outcomes) <= timeout + 0.02


def test_below_capacity_everybody_is_scored() -> None:
    async def scenario() -> list[Outcome]:
        return await load(gate_to(ScriptedEngine(2, 0.1)), 12, 60, 1.0)

    outcomes = simulate(scenario())
    assert scored(outcomes) >= 0.99 * len(outcomes)


def test_it_is_back_to_normal_ten_seconds_after_a_storm() -> None:
    async def scenario() -> list[Outcome]:
        gate = gate_to(ScriptedEngine(2, 0.1))
        await load(gate, 200, 20, 1.0)
        return await load(gate, 12, 30, 1.0, seed=1)

    outcomes = [outcome for outcome in simulate(scenario()) if outcome.at > 10]
    assert scored(outcomes) >= 0.99 * len(outcomes)


def test_an_engine_that_slows_down_and_recovers_is_followed() -> None:
    """Eight times slower for a quarter of a minute: what it still manages is used, then all of it again."""

    async def scenario() -> tuple[list[Outcome], list[Outcome], list[Outcome]]:
        engine = ScriptedEngine(2, 0.1)
        gate = gate_to(engine)
        before = await load(gate, 60, 10, 1.0)
        engine.seconds = 0.4
        during = await load(gate, 60, 20, 1.0, seed=1)
        engine.seconds = 0.1
        return before, during, await load(gate, 60, 30, 1.0, seed=2)

    before, during, after = simulate(scenario())
    assert scored(before) / 10 >= 18
    assert scored([outcome for outcome in during if outcome.at > 5]) / 15 >= 0.7 * 5
    assert scored([outcome for outcome in after if outcome.at > 10]) / 20 >= 18
    assert max(outcome.seconds for outcome in during) <= 1.02


def test_an_engine_too_slow_for_anybody_is_found_again_when_it_is_not() -> None:
    """Half a minute at three seconds an answer, where all have one: ten seconds after it nothing is left of it."""

    async def scenario() -> list[Outcome]:
        engine = ScriptedEngine(2, 3.0)
        gate = gate_to(engine)
        await load(gate, 20, 30, 1.0)
        engine.seconds = 0.1
        return await load(gate, 12, 30, 1.0, seed=1)

    outcomes = [outcome for outcome in simulate(scenario()) if outcome.at > 10]
    assert scored(outcomes) >= 0.98 * len(outcomes)


def test_a_request_that_no_engine_could_answer_in_time_is_hardly_ever_tried() -> None:
    """50 ms for what takes 100: all fall back in time, and the engine stays free for others."""

    async def scenario() -> tuple[list[Outcome], list[Outcome]]:
        gate = gate_to(ScriptedEngine(2, 0.1))
        await load(gate, 10, 5, 1.0)
        hurried, patient = await asyncio.gather(load(gate, 100, 20, 0.05), load(gate, 12, 20, 1.0, seed=1))
        return hurried, patient

    hurried, patient = simulate(scenario())
    assert scored(hurried) == 0
    assert max(outcome.seconds for outcome in hurried) <= 0.051
    assert sum(outcome.seconds > 0 for outcome in hurried) <= 0.02 * len(hurried)
    assert scored(patient) >= 0.97 * len(patient)


def test_rankings_do_not_starve_explanations_nor_they_rankings() -> None:
    """Rankings at five times the capacity, and a few explanations: these are written, those still ranked."""

    async def scenario() -> tuple[list[Outcome], list[Outcome], list[Outcome]]:
        gate = gate_to(ScriptedEngine(2, 0.1))
        return await asyncio.gather(
            load(gate, 100, 30, 1.0),
            load(gate, 2, 30, 10.0, "genres", seed=1),
            load(gate, 2, 30, 10.0, "sentence", seed=2),
        )

    rankings, genres, sentences = simulate(scenario())
    assert scored(genres) >= 0.95 * len(genres)
    assert scored(sentences) >= 0.95 * len(sentences)
    assert scored(rankings) / 30 >= 0.9 * (20 - 2 - 2)


def test_who_left_is_not_scored() -> None:
    """Ten wait for one that takes a second, and go away: the next waits for what was begun, and for nothing else."""

    async def scenario() -> float:
        loop, gate = asyncio.get_running_loop(), gate_to(ScriptedEngine(1, 1.0, depth=1))

        def ask() -> asyncio.Task[np.ndarray]:
            return asyncio.create_task(gate.ask(lambda: [cast("Question", Nothing())], 60.0))

        asks = [ask() for _ in range(10)]
        await asyncio.sleep(0.1)
        for gone in asks:
            gone.cancel()
        await asyncio.wait(asks)
        await ask()
        return loop.time() - 1000

    assert simulate(scenario()) <= 3.0


def test_a_late_request_goes_before_a_patient_one() -> None:
    """Sixteen that have a minute wait; who has a second is scored all the same."""

    async def scenario() -> list[Outcome]:
        gate = gate_to(ScriptedEngine(2, 0.1))
        await load(gate, 10, 5, 1.0)
        patient = asyncio.ensure_future(load(gate, 1000, 0.04, 60.0))
        await asyncio.sleep(0.1)
        hurried = await load(gate, 5, 1, 1.0, seed=3)
        await patient
        return hurried

    hurried = simulate(scenario())
    assert scored(hurried) == len(hurried)
