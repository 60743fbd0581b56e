"""The service's Prometheus metrics. Base units; no user or item ever becomes a label."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from service.outcome import FALLBACKS

Stage = Literal["user_representation", "retrieve", "prompt", "score", "explain"]
STAGES: tuple[Stage, ...] = ("user_representation", "retrieve", "prompt", "score", "explain")
StoreOperation = Literal["read", "record", "cache"]
STORE_OPERATIONS: tuple[StoreOperation, ...] = ("read", "record", "cache")
StoreFailure = Literal["unreachable", "late", "refused"]
STORE_FAILURES: tuple[StoreFailure, ...] = ("unreachable", "late", "refused")
Shed = Literal["llm_inflight", "llm_queue", "requests"]
SHED: tuple[Shed, ...] = ("llm_inflight", "llm_queue", "requests")

_REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0)


class Metrics:
    """All metrics of one service, in a registry of its own. Known label values start at zero, so that rates exist."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.http_requests = Counter(
            "allmrec_http_requests_total", "Answered requests.", ["route", "code"], registry=self.registry
        )
        self.http_duration = Histogram(
            "allmrec_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route", "code"],
            buckets=_REQUEST_SECONDS,
            registry=self.registry,
        )
        self.inflight = Gauge("allmrec_inflight_requests", "Requests being answered.", registry=self.registry)
        self.stage_duration = Histogram(
            "allmrec_stage_duration_seconds",
            "Time spent in one stage of an answer.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=self.registry,
        )
        self.candidates_scored = Counter(
            "allmrec_candidates_scored_total", "Items and genres scored by the LLM.", registry=self.registry
        )
        self.fallbacks = Counter(
            "allmrec_fallbacks_total", "Answers that had to fall back.", ["reason"], registry=self.registry
        )
        self.shed = Counter("allmrec_shed_total", "Work turned away under load.", ["reason"], registry=self.registry)
        self.user_cache = Counter(
            "allmrec_user_cache_requests_total",
            "Look-ups of user representations.",
            ["tier", "result"],
            registry=self.registry,
        )
        self.feedback_events = Counter(
            "allmrec_feedback_events_total", "Feedback events stored.", ["type"], registry=self.registry
        )
        self.store_failures = Counter(
            "allmrec_store_failures_total",
            "Operations that Redis did not do: reading live histories, recording events, caching representations.",
            ["operation", "reason"],
            registry=self.registry,
        )
        self.store_up = Gauge(
            "allmrec_store_up", "Whether Redis answers: for users, for the cache.", ["store"], registry=self.registry
        )
        self.index_items = Gauge("allmrec_index_items", "Items in the index being served.", registry=self.registry)
        self.bundle = Info("allmrec_bundle", "The bundle being served.", registry=self.registry)
        for stage in STAGES:
            self.stage_duration.labels(stage)
        for reason in FALLBACKS:
            self.fallbacks.labels(reason)
        for cause in SHED:
            self.shed.labels(cause)
        for operation in STORE_OPERATIONS:
            for failure in STORE_FAILURES:
                self.store_failures.labels(operation, failure)
        for tier in ("local", "redis"):
            for result in ("hit", "miss", *(("error",) if tier == "redis" else ())):
                self.user_cache.labels(tier, result)

    def store_failed(self, operation: StoreOperation, failure: StoreFailure) -> None:
        """Count what Redis did not do."""
        self.store_failures.labels(operation, failure).inc()

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time a stage, whether it succeeds or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stage_duration.labels(stage).observe(time.perf_counter() - started)

    def serving(self, bundle_version: str, variant: str, items: int) -> None:
        """Say which bundle is being served."""
        self.bundle.info({"bundle_version": bundle_version, "variant": variant})
        self.index_items.set(items)

    def render(self) -> bytes:
        """The exposition of these metrics and of the process's: the interpreter's, and the vLLM engine's if it runs."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)
