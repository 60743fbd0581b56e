"""The service over HTTP against its own engine called directly, and what a request costs outside the LLM.

The service runs in a thread of this process on a real socket; the load comes from a process of its own, as it does
in production, but shares the cores: the numbers are on the cautious side.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import uvicorn

from benchmarks.client import arrive, saturate
from benchmarks.load import Run, closed_loop
from benchmarks.questions import Asked
from benchmarks.ranking import rank
from models.engines.base import LLMEngine
from models.prompts.layout import Prompt
from models.scoring.choices import ChoiceTrie
from service.app import create_app, create_engine
from service.metrics import Metrics
from service.runtime import Services
from service.settings import Settings

Result = TypeVar("Result")


class TimedEngine:
    """An engine that remembers how long it took for each prompt."""

    def __init__(self, engine: LLMEngine) -> None:
        self._engine = engine
        self.seconds: dict[bytes, float] = {}

    def __getattr__(self, name: str) -> Any:
        """All else is the engine's own."""
        return getattr(self._engine, name)

    async def score(self, prompt: Prompt, trie: ChoiceTrie, due: float | None = None) -> list[np.ndarray]:
        """See `LLMEngine.score`."""
        started = time.perf_counter()
        try:
            return await self._engine.score(prompt, trie, due)
        finally:
            self.seconds[key_of(prompt)] = time.perf_counter() - started


def key_of(prompt: Prompt) -> bytes:
    """What a prompt says, whatever the order of its candidates: the service lists them by CF score."""
    return np.sort(prompt.token_ids).tobytes()


class Served:
    """A running service.

    Attributes:
        engine: its engine.
        port: where it listens.
    """

    def __init__(self, settings: Settings) -> None:
        ready = threading.Event()
        failures: list[BaseException] = []

        def make_engine(settings: Settings, llm: str) -> LLMEngine:
            self.engine = TimedEngine(create_engine(settings, llm))
            return self.engine

        def note(_: Services) -> None:
            self.loop = asyncio.get_running_loop()
            ready.set()

        def fail(error: BaseException) -> None:
            failures.append(error)
            ready.set()

        app = create_app(settings, engine_factory=make_engine, on_ready=note, on_failure=fail)
        self._metrics: Metrics = app.state.runtime.metrics
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=600))
        listener = socket.create_server((settings.host, 0))
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        ready.wait()
        if failures:
            self.close()
            raise failures[0]

    def direct(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work` in the service's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def stage_counts(self) -> dict[str, dict[float, float]]:
        """Of every stage, how often it took at most so many seconds, from the service's own histogram."""
        counts: dict[str, dict[float, float]] = {}
        for sample in next(iter(self._metrics.stage_duration.collect())).samples:
            if sample.name.endswith("_bucket"):
                counts.setdefault(sample.labels["stage"], {})[float(sample.labels["le"])] = sample.value
        return counts

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join()


def measure(
    served: Mapping[str, Any], ask: Callable[[int], list[Asked]], concurrency: int, rounds: int
) -> list[dict[str, Any]]:
    """Rows for direct and HTTP throughput at saturation, and for the time outside the LLM at half load.

    Args:
        served: settings: bundle, engine, dtype and device.
        ask: the questions of a round, by its number; none comes twice.
        concurrency: clients at saturation.
        rounds: counted rounds, after one to warm up.
    """
    with TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None,
            **served,
            redis_dir=Path(folder) / "redis",
            log_level="error",
            window=len(ask(0)[0].titles),
        )
        service = Served(settings)
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as load_process:
                return _measure(service, load_process, ask, concurrency, rounds)
        finally:
            service.close()


def _measure(
    served: Served, load_process: ProcessPoolExecutor, ask: Callable[[int], list[Asked]], concurrency: int, rounds: int
) -> list[dict[str, Any]]:
    direct, http = Run(), Run()
    for round_ in range(rounds + 1):
        counted = (direct, http) if round_ else (Run(), Run())  # the first round warms up
        questions = [each.question for each in ask(2 * round_)]
        bodies = [each.body for each in ask(2 * round_ + 1)]
        served.direct(closed_loop(counted[0], concurrency, questions, lambda q: rank(served.engine, q)))
        counted[1].add(*load_process.submit(saturate, served.port, concurrency, bodies).result())
    ratio = float(np.median(np.asarray(http.rates) / np.asarray(direct.rates)))
    half = float(np.median(http.rates)) / 2
    asked = ask(2 * rounds + 2)
    served.engine.seconds.clear()
    before = served.stage_counts()
    seconds = load_process.submit(arrive, served.port, half, concurrency, [each.body for each in asked]).result()
    after = served.stage_counts()
    scored = [served.engine.seconds[key_of(each.question.prompt)] for each in asked]
    outside = np.subtract(seconds, scored)
    p50, p99 = np.percentile(outside, [50, 99]) * 1e3
    ours = ("user_representation", "retrieve", "prompt", "score")
    rows: list[dict[str, Any]] = [
        {"load": f"engine, {concurrency} callers", **direct.summary(), "of direct": None},
        {"load": f"HTTP, {concurrency} clients", **http.summary(), "of direct": round(ratio, 3)},
    ]
    half_load = f"HTTP at {half:.1f} a second"
    rows.append(_row(f"{half_load}: outside the LLM", float(p50), float(p99), len(outside)))
    for stage in ours:
        counts = {bound: count - before[stage][bound] for bound, count in after[stage].items()}
        p50, p99 = (1e3 * _quantile(counts, share) for share in (0.5, 0.99))
        rows.append(_row(f"{half_load}: {stage}", p50, p99, len(outside)))
    return rows


def _row(load: str, p50_ms: float, p99_ms: float, answers: int) -> dict[str, Any]:
    quantiles = {"p50_ms": round(p50_ms, 2), "p99_ms": round(p99_ms, 2)}
    return {"load": load, "per_second": None, **quantiles, "answers": answers, "of direct": None}


def _quantile(counts: dict[float, float], share: float) -> float:
    """Interpolated in the bucket that holds it, as Prometheus does."""
    wanted = share * max(counts.values())
    lower, below = 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= wanted:
            return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower
