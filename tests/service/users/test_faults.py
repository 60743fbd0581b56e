"""What users see when something befalls Redis, through the whole service."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from models.errors import ConfigError
from service.stores.local import LocalServer, LocalServerError
from tests.service.users.test_users import ask, redis_pid, tell
from tests.service.world import FakeEngine, World, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> Any:
    server = LocalServer(tmp_path / "given")
    await server.start()
    yield server
    await server.close()


async def recommend(client: httpx.AsyncClient, user_id: str, **more: Any) -> dict[str, Any]:
    answer = await client.post("/recommend", json={"user_id": user_id, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def live_events(client: httpx.AsyncClient, user_id: str) -> int:
    answer = await client.get(f"/users/{user_id}")
    return answer.json()["live_events"] if answer.status_code == 200 else 0


async def test_a_burst_of_new_users_is_stored_and_answered(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """Four hundred at once, far more than there are connections: all stored, nobody cold."""
    settings = world.settings_for(tmp_path, redis_connections=4, max_inflight=500)
    async with serving(settings, engine) as (client, _):
        users = [f"new{number}" for number in range(400)]
        stored = await asyncio.gather(*(tell(client, {"user_id": user, "item_id": "i5"}) for user in users))
        assert {answer.status_code for answer in stored} == {202}
        answers = await asyncio.gather(*(recommend(client, user) for user in users))
        assert {answer["fallback"] for answer in answers} == {None}


async def test_a_hanging_redis_costs_no_ranking_however_short_the_timeout(
    world: World, engine: FakeEngine, tmp_path: Path, server: LocalServer
) -> None:
    """Known users are never answered by popularity; and who told this replica something is no stranger to it."""
    settings = world.settings_for(tmp_path, redis_url=server.url, user_cache_size=3)
    async with serving(settings, engine) as (client, _):
        await recommend(client, "u0")
        await tell(client, {"user_id": "newcomer", "item_id": "i5"})
        pid = redis_pid(tmp_path / "given")
        os.kill(pid, signal.SIGSTOP)
        try:
            for number in range(20):
                assert (await recommend(client, f"u{number}", timeout_ms=400))["ranker"] != "popularity"
            assert (await recommend(client, "newcomer"))["fallback"] is None
            refused = await tell(client, {"user_id": "newcomer", "item_id": "i6"})
            assert refused.status_code == 503
            metrics = (await client.get("/metrics")).text
            assert 'allmrec_store_up{store="users"} 0.0' in metrics
        finally:
            os.kill(pid, signal.SIGCONT)
        while (await tell(client, {"user_id": "newcomer", "item_id": "i6"})).status_code != 202:
            await asyncio.sleep(0.05)
        assert await live_events(client, "newcomer") == 2


async def test_a_full_redis_and_an_odd_key_make_nobody_cold(
    world: World, engine: FakeEngine, tmp_path: Path, server: LocalServer
) -> None:
    settings = world.settings_for(tmp_path, redis_url=server.url)
    async with serving(settings, engine) as (client, _), Redis.from_url(server.url) as redis:
        for number in range(12):
            await tell(client, {"user_id": f"live{number}", "item_id": "i5"})
        await redis.set("allmrec:2:default:tiny:{odd}:log", "not a hash")
        await redis.config_set("maxmemory", 1)
        for number in range(12):
            assert (await recommend(client, "odd"))["fallback"] == "cold_user"
            assert (await recommend(client, f"live{number}"))["fallback"] is None
        refused = await tell(client, {"user_id": "live0", "item_id": "i6"})
        assert (refused.status_code, refused.json()["title"]) == (503, "User store unavailable")
        assert 'failures_total{operation="record",reason="refused"} 1.0' in (await client.get("/metrics")).text
        await redis.config_set("maxmemory", 0)
        assert (await tell(client, {"user_id": "live0", "item_id": "i6"})).status_code == 202
        assert (await tell(client, {"user_id": "odd", "item_id": "i6"})).status_code == 503


async def test_events_that_are_not_stored_are_named_and_the_others_are_stored(
    world: World, engine: FakeEngine, tmp_path: Path, server: LocalServer
) -> None:
    """And remembered, while Redis is away."""
    settings = world.settings_for(tmp_path, redis_url=server.url)
    events = [{"user_id": user, "item_id": f"i{place + 5}"} for place, user in enumerate(("good", "odd", "new", "odd"))]
    async with serving(settings, engine) as (client, _), Redis.from_url(server.url) as redis:
        await redis.set("allmrec:2:default:tiny:{odd}:known", "not a hash")
        for _ in range(2):
            answer = await tell(client, *events)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert [each["field"] for each in answer.json()["errors"]] == ["events.1", "events.3"]
        metrics = (await client.get("/metrics")).text
        assert "allmrec_feedback_failures_total 4.0" in metrics
        assert 'allmrec_feedback_events_total{type="view"} 2.0' in metrics
        await server.close()
        for user in ("good", "new"):
            assert (await recommend(client, user))["fallback"] is None
        assert (await tell(client, *events)).json()["errors"] == []


async def test_many_representations_push_out_no_event(
    world: World, engine: FakeEngine, tmp_path: Path, server: LocalServer
) -> None:
    """They share a Redis, and keep to their places."""
    settings = world.settings_for(tmp_path, redis_url=server.url, representation_places=10, user_cache_size=1)
    async with serving(settings, engine) as (client, _), Redis.from_url(server.url) as redis:
        for number in range(40):
            await tell(client, {"user_id": f"v{number}", "item_id": f"i{number % 24 + 1}"})
            await recommend(client, f"v{number}", history=[{"item_id": f"i{number % 20 + 1}"}])
        assert len([key async for key in redis.scan_iter("*:x:*")]) <= 10
        assert [await live_events(client, f"v{number}") for number in range(40)] == [1] * 40


async def test_a_second_service_on_one_folder_does_not_start(
    world: World, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.stores.local._CLAIM_SECONDS", 0.1)
    settings = world.settings_for(tmp_path)
    async with serving(settings, engine):
        with pytest.raises(LocalServerError, match="another service uses this folder"):
            async with serving(settings, engine):
                pass


async def test_what_was_acknowledged_survives_the_death_of_the_server(
    world: World, engine: FakeEngine, tmp_path: Path
) -> None:
    """Killed again and again among events; the replica asks Redis for each user, as it remembers only one."""
    settings = world.settings_for(tmp_path, user_cache_size=1, redis_retry_seconds=0.05)
    acknowledged = []
    async with serving(settings, engine) as (client, _):
        for number in range(60):
            if number % 20 == 10:
                os.kill(redis_pid(tmp_path / "redis"), signal.SIGKILL)
            answer = await tell(client, {"user_id": f"w{number}", "item_id": "i1"})
            if answer.status_code == 202:
                acknowledged.append(f"w{number}")
            else:
                assert answer.status_code == 503
                await asyncio.sleep(0.05)
        while (await tell(client, {"user_id": "last", "item_id": "i1"})).status_code != 202:
            await asyncio.sleep(0.05)
        assert len(acknowledged) > 30
        assert [await live_events(client, user_id) for user_id in acknowledged] == [1] * len(acknowledged)


async def test_users_in_memory_are_users_too(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    async with serving(world.settings_for(tmp_path, redis_url="memory://"), engine) as (client, _):
        await tell(client, {"user_id": "newcomer", "item_id": "i5"})
        assert (await ask(client, "newcomer"))["fallback"] is None
    assert not (tmp_path / "redis").exists()


@pytest.mark.parametrize("name", ["redis_url", "cache_url"])
async def test_a_url_that_is_none_ends_the_start(world: World, engine: FakeEngine, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"_URL: a Redis URL begins with"):
        async with serving(world.settings_for(tmp_path, **{name: "http://host"}), engine):
            pass
