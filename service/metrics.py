"""The service's Prometheus metrics. Base units; no user or item ever becomes a label.

What is an event is counted where it happens; what is a state is read when metrics are scraped, so that it is true
however long nothing happened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Literal, get_args

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from service.outcome import FALLBACKS, Fallback

Stage = Literal["user_representation", "retrieve", "prompt", "score", "explain"]
STAGES: tuple[Stage, ...] = ("user_representation", "retrieve", "prompt", "score", "explain")
StoreOperation = Literal["read", "record", "cache"]
STORE_OPERATIONS: tuple[StoreOperation, ...] = ("read", "record", "cache")
StoreFailure = Literal["unreachable", "late", "refused"]
STORE_FAILURES: tuple[StoreFailure, ...] = ("unreachable", "late", "refused")
Shed = Literal["llm_inflight", "llm_queue", "requests"]
SHED: tuple[Shed, ...] = ("llm_inflight", "llm_queue", "requests")
Answer = Literal["/recommend", "/explain/genre", "/explain/item"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
"""The routes whose answers the LLM takes part in."""

LAG_INTERVAL_SECONDS = 0.1

_REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_BATCH_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """All metrics of one service, in a registry of its own. Known label values start at zero, so that rates exist."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._elsewhere: Callable[[], Awaitable[bytes]] = _nothing
        self._define_requests()
        self._define_llm()
        self._define_users()
        self._define_service()

    def _counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        return Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)

    def _define_requests(self) -> None:
        answered = ["route", "code"]
        self.http_requests = self._counter("allmrec_http_requests_total", "Answered requests.", answered)
        self.http_duration = self._histogram(
            "allmrec_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            _REQUEST_SECONDS,
            answered,
        )
        self.inflight = self._gauge("allmrec_inflight_requests", "Requests being answered.")
        self.stage_duration = self._histogram(
            "allmrec_stage_duration_seconds", "Time spent in one stage of an answer.", _STAGE_SECONDS, ["stage"]
        )
        self.fallbacks = self._counter("allmrec_fallbacks_total", "Answers that had to fall back.", ["route", "reason"])
        self.deadline_misses = self._counter(
            "allmrec_deadline_misses_total", "Answers that came after their time was over.", ["route"]
        )
        self.shed = self._counter("allmrec_shed_total", "Work turned away under load.", ["reason"])
        for stage in STAGES:
            self.stage_duration.labels(stage)
        for route in ANSWERS:
            self.deadline_misses.labels(route)
            for reason in FALLBACKS:
                self.fallbacks.labels(route, reason)
        for cause in SHED:
            self.shed.labels(cause)

    def _define_llm(self) -> None:
        self.candidates_scored = self._counter(
            "allmrec_candidates_scored_total", "Items and genres scored by the LLM, in each question."
        )
        self.engine_healthy = self._gauge("allmrec_engine_healthy", "Whether the LLM engine can be asked: 1 or 0.")
        self.queue_requests = self._gauge(
            "allmrec_llm_queue_requests", "Requests that wait for the LLM or are under way there."
        )
        self.queue_age = self._gauge("allmrec_llm_queue_age_seconds", "How long the oldest of them has been there.")
        self.batch_requests = self._histogram(
            "allmrec_llm_batch_requests", "Requests of one forward pass.", _BATCH_REQUESTS
        )

    def _define_users(self) -> None:
        self.user_cache = self._counter(
            "allmrec_user_cache_requests_total", "Look-ups of user representations.", ["tier", "result"]
        )
        self.feedback_events = self._counter("allmrec_feedback_events_total", "Feedback events stored.", ["type"])
        self.feedback_failures = self._counter(
            "allmrec_feedback_failures_total", "Feedback events refused because they could not be stored."
        )
        self.store_failures = self._counter(
            "allmrec_store_failures_total",
            "Operations that Redis did not do: reading live histories, recording events, caching representations.",
            ["operation", "reason"],
        )
        self.store_duration = self._histogram(
            "allmrec_store_duration_seconds", "Time of an operation at Redis.", _STAGE_SECONDS, ["operation"]
        )
        self.store_up = self._gauge("allmrec_store_up", "Whether Redis answers: for users, for the cache.", ["store"])
        for operation in STORE_OPERATIONS:
            self.store_duration.labels(operation)
            for failure in STORE_FAILURES:
                self.store_failures.labels(operation, failure)
        for tier in ("local", "redis"):
            for result in ("hit", "miss", *(("error",) if tier == "redis" else ())):
                self.user_cache.labels(tier, result)

    def _define_service(self) -> None:
        self.ready = self._gauge("allmrec_ready", "Whether bundle and LLM are loaded: 1 or 0.")
        self.loop_lag = self._histogram(
            "allmrec_event_loop_lag_seconds", "How much later than due the event loop comes by.", _LAG_SECONDS
        )
        self.index_items = self._gauge("allmrec_index_items", "Items in the index being served.")
        self.bundle = Info("allmrec_bundle", "The bundle being served.", registry=self.registry)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time a stage, whether it succeeds or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stage_duration.labels(stage).observe(time.perf_counter() - started)

    @contextmanager
    def store(self, operation: StoreOperation) -> Iterator[None]:
        """Time an operation at Redis, whether it succeeds or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.store_duration.labels(operation).observe(time.perf_counter() - started)

    def store_failed(self, operation: StoreOperation, failure: StoreFailure) -> None:
        """Count what Redis did not do."""
        self.store_failures.labels(operation, failure).inc()

    def fell_back(self, route: Answer, reason: Fallback) -> None:
        """Count an answer without the LLM."""
        self.fallbacks.labels(route, reason).inc()

    def deadline_missed(self, route: Answer) -> None:
        """Count an answer that came after its time was over."""
        self.deadline_misses.labels(route).inc()

    def feedback_refused(self, events: int) -> None:
        """Count events that could not be stored, of which the client was told."""
        self.feedback_failures.inc(events)

    def turned_away(self, status: int) -> None:
        """Count what was refused before anything was made of it."""
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.shed.labels("requests").inc()
        self.http_requests.labels("refused", status).inc()

    def batch(self, requests: int) -> None:
        """Observe how many requests a forward pass of the LLM answers."""
        self.batch_requests.observe(requests)

    def watch_engine(self, healthy: Callable[[], bool]) -> None:
        """Ask at every scrape whether the LLM engine can be asked."""
        self.engine_healthy.set_function(lambda: float(healthy()))

    def watch_queue(self, load: Callable[[], tuple[int, float]]) -> None:
        """Ask at every scrape how many requests are at the LLM, waiting or under way, and the oldest one's age."""
        self.queue_requests.set_function(lambda: load()[0])
        self.queue_age.set_function(lambda: load()[1])

    async def watch_event_loop(self, interval_seconds: float = LAG_INTERVAL_SECONDS) -> None:
        """Observe how late the event loop comes by, until cancelled."""
        while True:
            due = time.perf_counter() + interval_seconds
            await asyncio.sleep(interval_seconds)
            self.loop_lag.observe(max(0.0, time.perf_counter() - due))

    def serving(self, bundle_version: str, variant: str, items: int) -> None:
        """Say which bundle is being served."""
        self.bundle.info({"bundle_version": bundle_version, "variant": variant})
        self.index_items.set(items)

    def watch_process(self, measured: Callable[[], Awaitable[bytes]]) -> None:
        """Have `render` add what is measured in the LLM's process."""
        self._elsewhere = measured

    async def render(self) -> bytes:
        """The exposition of these metrics, the interpreter's, and the vLLM engine's if it runs, here or elsewhere."""
        return generate_latest(self.registry) + generate_latest(REGISTRY) + await self._elsewhere()


async def _nothing() -> bytes:
    return b""


def engine_exposition() -> bytes:
    """What is measured in this process where it is the LLM's: of itself, and by vLLM. It tells the service's so."""
    return generate_latest(_OfTheLLM())


class _OfTheLLM(CollectorRegistry):
    def __init__(self) -> None:
        super().__init__()
        self._process = ProcessCollector(namespace="allmrec_llm", registry=None)

    def collect(self) -> Iterator[Metric]:
        yield from self._process.collect()
        yield from (metric for metric in REGISTRY.collect() if metric.name.startswith("vllm"))
