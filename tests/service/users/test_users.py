"""Feedback, users, items, and the caches between them and an answer."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from models.bundle.store import load_bundle
from service.metrics import Metrics
from service.settings import Settings
from service.stores.local import LocalServer
from service.stores.memory import MemoryCache
from service.users.histories import append
from service.users.representations import Representations, representation_key
from tests.service.world import USER_SIZE, FakeEngine, World, serving

pytestmark = pytest.mark.anyio


async def ask(client: httpx.AsyncClient, user_id: str) -> dict[str, Any]:
    answer = await client.post("/recommend", json={"user_id": user_id})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def tell(client: httpx.AsyncClient, *events: dict[str, Any]) -> httpx.Response:
    return await client.post("/feedback", json={"events": list(events)})


async def cache_counts(client: httpx.AsyncClient) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    prefix = "allmrec_user_cache_requests_total"
    pairs = (line.removeprefix(prefix).rsplit(" ", 1) for line in lines if line.startswith(prefix))
    return {labels: float(count) for labels, count in pairs}


def redis_pid(directory: Path) -> int:
    """The server that persists into `directory`."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            executable, *_ = (entry / "cmdline").read_bytes().split(b"\0")
            if b"valkey-server" in executable and (entry / "cwd").resolve() == directory.resolve():
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError("no server runs there")


async def test_the_next_answer_reflects_an_event(client: httpx.AsyncClient) -> None:
    """A new user is cold, then not; what was met is no longer recommended."""
    assert (await ask(client, "newcomer"))["fallback"] == "cold_user"
    answer = await tell(client, {"user_id": "newcomer", "item_id": "i5", "type": "like"})
    assert answer.status_code == 202
    assert answer.json() == {"accepted": 1, "missing_item_ids": []}
    after = await ask(client, "newcomer")
    assert (after["ranker"], after["fallback"]) == ("llm", None)
    assert "i5" not in [item["item_id"] for item in after["items"]]


async def test_a_known_users_events_follow_the_history_of_training(client: httpx.AsyncClient) -> None:
    before = (await client.get("/users/u7")).json()
    assert before["live_events"] == 0
    await tell(
        client,
        {"user_id": "u7", "item_id": "i30", "timestamp": "2026-05-02T00:00:00Z"},
        {"user_id": "u7", "item_id": "i29", "timestamp": "2026-05-01T00:00:00Z"},
    )
    after = (await client.get("/users/u7")).json()
    assert after["live_events"] == 2
    assert [item["item_id"] for item in after["history"][:2]] == ["i30", "i29"]
    assert after["history"][2:] == before["history"]


async def test_an_item_of_training_met_again_is_not_shown_twice(client: httpx.AsyncClient) -> None:
    before = [item["item_id"] for item in (await client.get("/users/u10")).json()["history"]]
    await tell(client, {"user_id": "u10", "item_id": before[-1]})
    after = [item["item_id"] for item in (await client.get("/users/u10")).json()["history"]]
    assert after == [before[-1], *before[:-1]]


def test_append_lets_the_later_place_count() -> None:
    assert append([1, 2, 3], [4, 2]) == [1, 3, 4, 2]
    assert append([], [1]) == [1]
    assert append([1], []) == [1]


async def test_events_about_unknown_items_are_kept_and_reported(client: httpx.AsyncClient) -> None:
    answer = await tell(client, {"user_id": "u11", "item_id": "x"}, {"user_id": "u11", "item_id": "i1"})
    assert answer.json() == {"accepted": 2, "missing_item_ids": ["x"]}


@pytest.mark.parametrize(
    "body",
    [{}, {"events": []}, {"events": [{"user_id": "u"}]}, {"events": [{"user_id": "u", "item_id": "i", "type": "nod"}]}],
)
async def test_bad_events_are_422(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await client.post("/feedback", json=body)).status_code == 422


async def test_items_and_users_can_be_looked_up(client: httpx.AsyncClient) -> None:
    item = (await client.get("/items/i30")).json()
    assert (item["item_id"], item["categories"], item["cold"], item["interactions"]) == ("i30", ["Comedy"], True, 0)
    assert (await client.get("/items/i1")).json()["cold"] is False
    for path in ("/items/none", "/users/nobody", "/items/a/b"):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


async def test_about_tells_what_is_served(client: httpx.AsyncClient, world: World) -> None:
    about = (await client.get("/about")).json()
    assert (about["items"], about["users"], about["noun"], about["llm"]) == (30, 20, "movie", str(world.llm))
    assert about["sample_user_ids"][0] == "u0"


async def test_about_tells_what_the_llm_and_the_signals_are_worth(client: httpx.AsyncClient) -> None:
    """As the manifest has it: the LLM gains .02 (.01 to .03), as each of the two signals beside it does."""
    about = (await client.get("/about")).json()
    worth = {"mean": 0.02, "low": 0.01, "high": 0.03}
    assert about["ranker"] == "llm"
    assert about["llm_lift"] == worth
    assert (about["sources"], about["refitted"]) == (["cf"], False)
    assert about["llm_in_words"] == (
        "the LLM adds +0.0200 (+0.0100 to +0.0300) of NDCG@10 to the blend without it,"
        " and +0.0200 nats (+0.0100 to +0.0300)"
    )
    assert about["signals"] == [{"id": name, "title": name, "lift": worth} for name in ("cf", "words_best")]


async def test_a_representation_is_looked_up_in_this_process_then_in_redis_then_computed(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    """First time computed, second time local; after a restart Redis has it."""
    server = LocalServer(tmp_path / "given")
    await server.start()
    settings = world.settings_for(tmp_path, redis_url=server.url)
    async with serving(settings, engine) as (client, _):
        first = await ask(client, "u0")
        assert await cache_counts(client) == {
            '{result="hit",tier="local"}': 0,
            '{result="miss",tier="local"}': 1,
            '{result="hit",tier="redis"}': 0,
            '{result="miss",tier="redis"}': 1,
            '{result="error",tier="redis"}': 0,
        }
        assert (await ask(client, "u0"))["items"] == first["items"]
        assert (await cache_counts(client))['{result="hit",tier="local"}'] == 1
    async with serving(settings, engine) as (client, _):
        assert (await ask(client, "u0"))["items"] == first["items"]
        assert (await cache_counts(client))['{result="hit",tier="redis"}'] == 1
    await server.close()


async def test_a_key_holds_history_order_and_bundle_version() -> None:
    keys = {
        representation_key(np.array(history), version)
        for history in ([1, 2], [2, 1], [1], [12], [1, 2, 0])
        for version in ("a", "b")
    }
    assert len(keys) == 10


async def test_the_llms_vectors_are_kept_under_its_precision() -> None:
    """Replicas in float32 and in half precision may share a Redis."""
    cache, executor = MemoryCache(10), ThreadPoolExecutor(1)
    told = Settings(_env_file=None).precision, Settings(_env_file=None, engine_options={"dtype": "bfloat16"}).precision
    full, half = (Representations(cache, executor, Metrics(), 10, precision) for precision in told)
    model = SimpleNamespace(cf_vectors=torch.zeros(1, USER_SIZE))
    manifest = SimpleNamespace(user_size=USER_SIZE)
    deployment: Any = SimpleNamespace(
        listed=lambda history: history, version="v", model=model, bundle=SimpleNamespace(manifest=manifest)
    )
    history, vector = np.array([1, 2]), torch.arange(float(USER_SIZE))
    full.keep_encoded(deployment, history, vector)
    await asyncio.sleep(0.05)
    again = Representations(cache, executor, Metrics(), 10, Settings(_env_file=None, dtype="float32").precision)
    assert (await again.encoded(deployment, history, 5.0)).tolist() == vector.tolist()
    assert await half.encoded(deployment, history, 5.0) is None
    executor.shutdown()


async def test_a_stored_representation_is_the_backbones(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """What lies in Redis is x_u itself: little-endian float32, equal to the backbone's own."""
    async with serving(world.settings_for(tmp_path), engine) as (client, app):
        await ask(client, "u0")
        cache = app.state.runtime.services.cache
        contents = load_bundle(world.bundle).model
        history = contents.histories.of("u0")
        key = representation_key(history, app.state.runtime.services.deployments.take().version)
        while (value := await cache.get(key)) is None:
            await asyncio.sleep(0.01)
    rows = torch.from_numpy(history.astype(np.int64))[None]
    expected = contents.backbone.represent(rows, contents.cf_vectors)[0]
    assert len(value) == 4 * USER_SIZE
    np.testing.assert_allclose(np.frombuffer(value, "<f4"), expected.numpy(), atol=1e-6)


async def test_redis_killed_under_load_costs_no_answer_and_comes_back(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    """Forty requests before, while and after it dies get what they got before; then it is started again."""
    settings = world.settings_for(tmp_path, redis_retry_seconds=0.05, user_cache_size=1)
    async with serving(settings, engine) as (client, _):
        expected = {user_id: (await ask(client, user_id))["items"] for user_id in ("u0", "u1", "u2", "u3")}
        await tell(client, {"user_id": "u9", "item_id": "i1"})

        async def load() -> None:
            for _ in range(10):
                for user_id, items in expected.items():
                    assert (await ask(client, user_id))["items"] == items

        loading = [asyncio.create_task(load()) for _ in range(4)]
        await asyncio.sleep(0.05)
        os.kill(redis_pid(tmp_path / "redis"), signal.SIGKILL)
        await asyncio.gather(*loading)
        await load()

        while (await client.get("/users/u9")).json().get("live_events") != 1:
            await asyncio.sleep(0.05)
        while (await tell(client, {"user_id": "u8", "item_id": "i1"})).status_code != 202:
            await asyncio.sleep(0.05)
        assert (await client.get("/users/u8")).json()["live_events"] == 1


async def test_without_redis_answers_come_and_feedback_asks_to_come_back(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    """Down from the start: recommendations and explanations as ever, only events cannot be kept."""
    settings = world.settings_for(tmp_path, redis_url="redis://127.0.0.1:1")
    async with serving(settings, engine) as (client, _):
        assert (await client.get("/health/ready")).status_code == 200
        assert (await ask(client, "u0"))["ranker"] == "llm"
        assert (await client.get("/explain/genre", params={"user_id": "u0"})).status_code == 200
        for path in ("/users/nobody", "/explain/genre?user_id=nobody"):  # who may be somebody
            assert (await client.get(path)).status_code == 503
        refused = await tell(client, {"user_id": "u0", "item_id": "i1"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        counts = await cache_counts(client)
        assert counts['{result="error",tier="redis"}'] == 1
        metrics = (await client.get("/metrics")).text
        assert 'allmrec_store_failures_total{operation="record",reason="unreachable"} 1.0' in metrics
        assert 'allmrec_store_up{store="users"} 0.0' in metrics


async def test_a_redis_that_hangs_is_not_waited_for(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """It accepts connections and never answers."""
    silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    settings = world.settings_for(tmp_path, redis_url=f"redis://127.0.0.1:{port}", redis_timeout_ms=50)
    async with serving(settings, engine) as (client, _):
        assert (await ask(client, "u0"))["ranker"] == "llm"
    silent.close()


async def test_a_damaged_entry_in_redis_is_not_used(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    async with serving(world.settings_for(tmp_path, user_cache_size=1), engine) as (client, app):
        good = await ask(client, "u0")
        cache = app.state.runtime.services.cache
        history = load_bundle(world.bundle).model.histories.of("u0")
        key = representation_key(history, app.state.runtime.services.deployments.take().version)
        await cache.put(key, b"short")
        await ask(client, "u1")
        assert (await ask(client, "u0"))["items"] == good["items"]
