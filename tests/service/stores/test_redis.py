"""What only the store in Redis must do."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from service.stores.port import Event, StoreError
from service.stores.redis import RedisStore, RedisStoreConfig

pytestmark = pytest.mark.anyio

CATALOGUE = "films"


async def test_everything_in_redis_expires(redis_url: str) -> None:
    store = RedisStore(redis_url, RedisStoreConfig(timeout_seconds=5, history_ttl_seconds=90))
    await store.record("expiry", [Event("u", "a", 1.0)])
    await store.put_vector("k", b"x")
    async with Redis.from_url(redis_url) as redis:
        assert 0 < await redis.ttl("allmrec:expiry:live:u") <= 90
        assert 0 < await redis.ttl("allmrec:x:k") <= 86_400
    await store.close()


async def test_a_store_that_cannot_be_reached_says_so_and_is_left_alone() -> None:
    """Nobody listens there. The first call fails by trying, the next without."""
    store = RedisStore("redis://127.0.0.1:1", RedisStoreConfig(retry_seconds=3600))
    with pytest.raises(StoreError, match="cannot be reached"):
        await store.vector("k")
    with pytest.raises(StoreError, match="a moment ago"):
        await store.record(CATALOGUE, [Event("u", "a", 1.0)])
    await store.close()


async def test_a_server_that_answers_nonsense_is_an_unavailable_store(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.set("allmrec:odd:live:u", "not a sorted set")
    store = RedisStore(redis_url, RedisStoreConfig(timeout_seconds=5))
    with pytest.raises(StoreError):
        await store.live_history("odd", "u")
    await store.close()
