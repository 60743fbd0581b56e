"""What an on-call needs to tell the LLM, Redis, the queue and the event loop apart."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics
from service.stores.port import StoreError
from tests.service.world import FakeEngine, World, serving

pytestmark = pytest.mark.anyio
AN_HOUR = 3600.0


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    value = metrics.registry.get_sample_value(name, labels)
    assert value is not None, name
    return value


async def value(client: httpx.AsyncClient, name: str, **labels: str) -> float | None:
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    found = [each.value for family in families for each in family.samples if (each.name, each.labels) == (name, labels)]
    return found[0] if found else None


async def test_the_engines_health_is_read_at_every_scrape(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    """No request is needed to see that it died."""
    assert await value(faked, "allmrec_engine_healthy") == 1
    engine.healthy = False
    assert await value(faked, "allmrec_engine_healthy") == 0
    assert await value(faked, "allmrec_ready") == 1


async def test_readiness_ends_with_the_service(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    async with serving(world.settings_for(tmp_path), engine) as (_, app):
        metrics = app.state.runtime.metrics
        assert sample(metrics, "allmrec_ready") == 1
    assert sample(metrics, "allmrec_ready") == 0
    assert sample(Metrics(), "allmrec_ready") == 0


async def test_what_is_at_the_llm_has_a_number_and_an_age(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Two requests that an LLM of an hour's patience holds; then none, of no age."""
    calls, engine.seconds = engine.calls, AN_HOUR
    body = {"user_id": "u0", "timeout_ms": 60_000}
    waiting = [asyncio.create_task(faked.post("/recommend", json=body)) for _ in range(2)]
    while engine.calls < calls + 2:
        await asyncio.sleep(0.005)
    assert await value(faked, "allmrec_llm_queue_requests") == 2
    first = await value(faked, "allmrec_llm_queue_age_seconds")
    await asyncio.sleep(0.05)
    second = await value(faked, "allmrec_llm_queue_age_seconds")
    assert first is not None
    assert second is not None
    assert 0 < first + 0.05 <= second
    for request in waiting:
        request.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    while await value(faked, "allmrec_llm_queue_requests"):
        await asyncio.sleep(0.005)
    assert await value(faked, "allmrec_llm_queue_age_seconds") == 0


async def test_batches_have_a_size(client: httpx.AsyncClient) -> None:
    """One request is one batch of one."""
    before = await value(client, "allmrec_llm_batch_requests_sum")
    assert (await client.post("/recommend", json={"user_id": "u0"})).json()["ranker"] == "llm"
    after = await value(client, "allmrec_llm_batch_requests_sum")
    assert before is not None
    assert after is not None
    assert after >= before + 1


async def test_a_fallback_says_on_which_route(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.healthy = False
    await faked.post("/recommend", json={"user_id": "u0"})
    await faked.get("/explain/genre", params={"user_id": "u0"})
    await faked.get("/explain/genre", params={"user_id": "u0"})
    reason = {"reason": "llm_error"}
    assert await value(faked, "allmrec_fallbacks_total", route="/recommend", **reason) == 1
    assert await value(faked, "allmrec_fallbacks_total", route="/explain/genre", **reason) == 2


async def test_an_answer_after_its_time_is_counted(faked: httpx.AsyncClient) -> None:
    """Nothing answers within a thousandth of a second."""
    await faked.post("/recommend", json={"user_id": "u0", "timeout_ms": 20_000})
    assert await value(faked, "allmrec_deadline_misses_total", route="/recommend") == 0
    await faked.post("/recommend", json={"user_id": "u0", "timeout_ms": 1})
    assert await value(faked, "allmrec_deadline_misses_total", route="/recommend") == 1


async def test_a_shed_request_counts_at_its_route(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """It is refused before it is routed, and a path that nobody has stays unmatched."""
    async with serving(world.settings_for(tmp_path, max_requests=1), engine) as (client, _):
        calls, engine.seconds = engine.calls, AN_HOUR
        waiting = asyncio.create_task(client.post("/recommend", json={"user_id": "u0", "timeout_ms": 1500}))
        while engine.calls == calls:
            await asyncio.sleep(0.005)
        assert (await client.get("/items/i1")).status_code == 503
        assert (await client.get("/nowhere/at/all")).status_code == 503
        await waiting
        assert await value(client, "allmrec_http_requests_total", route="/items/{item_id}", code="503") == 1
        assert await value(client, "allmrec_http_requests_total", route="unmatched", code="503") == 1


async def test_feedback_is_counted_once_however_often_it_is_sent(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    """Five hundred events of one user, thrice: history and count are those of once."""
    events = [{"user_id": "n", "item_id": f"i{number % 30 + 1}", "event_id": f"{number}"} for number in range(500)]
    async with serving(world.settings_for(tmp_path), engine) as (client, _):
        await client.post("/feedback", json={"events": events})
        once = (await client.get("/users/n")).json()
        for _ in range(2):
            assert (await client.post("/feedback", json={"events": events})).status_code == 202
        assert (await client.get("/users/n")).json() == once
        assert await value(client, "allmrec_feedback_events_total", type="view") == 500


async def test_refused_feedback_is_counted_by_event(
    world: World, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(world.settings_for(tmp_path), engine) as (client, app):

        async def refuse(*_: object) -> None:
            raise StoreError("Redis cannot be reached")

        monkeypatch.setattr(app.state.runtime.services.histories, "record", refuse)
        events = [{"user_id": "f", "item_id": f"i{number}", "type": "view"} for number in (1, 2, 3)]
        assert (await client.post("/feedback", json={"events": events})).status_code == 503
        assert await value(client, "allmrec_feedback_failures_total") == 3
        assert await value(client, "allmrec_feedback_events_total", type="view") is None


async def test_a_blocked_event_loop_lags() -> None:
    """By the .2 s for which somebody holds it."""
    metrics = Metrics()
    watching = asyncio.create_task(metrics.watch_event_loop(0.01))
    await asyncio.sleep(0.05)
    time.sleep(0.2)
    await asyncio.sleep(0.05)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    slow = sample(metrics, "allmrec_event_loop_lag_seconds_count") - sample(
        metrics, "allmrec_event_loop_lag_seconds_bucket", le="0.1"
    )
    assert slow == 1
    assert sample(metrics, "allmrec_event_loop_lag_seconds_sum") >= 0.19


async def test_the_event_loop_is_watched_while_the_service_runs(faked: httpx.AsyncClient) -> None:
    await asyncio.sleep(0.3)
    assert (await value(faked, "allmrec_event_loop_lag_seconds_count") or 0) >= 1


def test_operations_at_redis_are_timed_whether_they_succeed_or_not() -> None:
    metrics = Metrics()
    with metrics.store("read"):
        pass
    with pytest.raises(ZeroDivisionError), metrics.store("read"):
        raise ZeroDivisionError
    metrics.store_failed("read", "late")
    assert sample(metrics, "allmrec_store_duration_seconds_count", operation="read") == 2
    assert sample(metrics, "allmrec_store_failures_total", operation="read", reason="late") == 1
    assert sample(metrics, "allmrec_store_failures_total", operation="record", reason="late") == 0


def test_names_and_labels_keep_to_the_conventions() -> None:
    """Base units, `_total` on counters alone, and no label that grows with users or items."""
    metrics = Metrics()
    metrics.http_requests.labels("/", 200).inc()
    metrics.http_duration.labels("/", 200).observe(1)
    metrics.feedback_events.labels("view").inc()
    known = {"route", "code", "stage", "reason", "tier", "result", "type", "operation", "store", "le"}
    known |= {"bundle_version", "variant"}
    for family in metrics.registry.collect():
        assert family.name.startswith("allmrec_")
        assert not family.name.endswith(("_ms", "_milliseconds", "_mb", "_percent"))
        for each in family.samples:
            assert each.name.endswith("_total") == (family.type == "counter")
            assert set(each.labels) <= known
