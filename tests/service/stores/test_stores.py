"""What every user store does, run on all of them; and what only Redis must do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.stores.breaker import Breaker
from service.stores.local import EmbeddedRedis, EmbeddedRedisError
from service.stores.lru import LRU
from service.stores.memory import MemoryStore
from service.stores.port import Event, StoreError, UserStore
from service.stores.redis import RedisStore, RedisStoreConfig

pytestmark = pytest.mark.anyio

KEPT = 3


@pytest.fixture(scope="module")
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    await server.start()
    yield server.url
    await server.close()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[UserStore]:
    if request.param == "memory":
        yield MemoryStore(KEPT, size=100)
        return
    redis = RedisStore(redis_url, request.node.name, RedisStoreConfig(history_items=KEPT, timeout_seconds=5))
    yield redis
    await redis.close()


async def test_an_unknown_user_has_no_history(store: UserStore) -> None:
    assert await store.live_history("nobody") == []


async def test_events_are_kept_in_order_of_time(store: UserStore) -> None:
    await store.record([Event("u", "later", 2.5), Event("v", "other", 1.0)])
    await store.record([Event("u", "earlier", 1.5)])
    assert await store.live_history("u") == ["earlier", "later"]
    assert await store.live_history("v") == ["other"]


async def test_recording_twice_changes_nothing_and_an_old_report_does_not_move_an_item_back(store: UserStore) -> None:
    events = [Event("u", "a", 1.0), Event("u", "b", 2.0)]
    await store.record(events)
    await store.record(events)
    await store.record([Event("u", "b", 0.5)])
    assert await store.live_history("u") == ["a", "b"]


async def test_an_item_met_again_moves_to_its_latest_time(store: UserStore) -> None:
    await store.record([Event("u", "a", 1.0), Event("u", "b", 2.0), Event("u", "a", 3.0)])
    assert await store.live_history("u") == ["b", "a"]


async def test_only_the_latest_events_are_kept(store: UserStore) -> None:
    await store.record([Event("u", f"i{moment}", float(moment)) for moment in range(5)])
    assert await store.live_history("u") == ["i2", "i3", "i4"]


async def test_ids_may_hold_any_text(store: UserStore) -> None:
    await store.record([Event("ü: \n*", "é\0 🎬", 1.0)])
    assert await store.live_history("ü: \n*") == ["é\0 🎬"]


async def test_vectors_are_bytes_by_key(store: UserStore) -> None:
    assert await store.vector("k") is None
    await store.put_vector("k", b"\0\1\xff")
    assert await store.vector("k") == b"\0\1\xff"


async def test_catalogues_do_not_share_users(redis_url: str) -> None:
    books, films = (RedisStore(redis_url, name, RedisStoreConfig(timeout_seconds=5)) for name in ("books", "films"))
    await books.record([Event("u", "a", 1.0)])
    assert await films.live_history("u") == []
    await books.close()
    await films.close()


async def test_everything_in_redis_expires(redis_url: str) -> None:
    store = RedisStore(redis_url, "expiry", RedisStoreConfig(timeout_seconds=5, history_ttl_seconds=90))
    await store.record([Event("u", "a", 1.0)])
    await store.put_vector("k", b"x")
    async with Redis.from_url(redis_url) as redis:
        assert 0 < await redis.ttl("allmrec:expiry:live:u") <= 90
        assert 0 < await redis.ttl("allmrec:expiry:x:k") <= 86_400
    await store.close()


async def test_a_store_that_cannot_be_reached_says_so_and_is_left_alone() -> None:
    """Nobody listens there. The first call fails by trying, the next without."""
    store = RedisStore("redis://127.0.0.1:1", "x", RedisStoreConfig(retry_seconds=3600))
    with pytest.raises(StoreError, match="cannot be reached"):
        await store.vector("k")
    with pytest.raises(StoreError, match="a moment ago"):
        await store.record([Event("u", "a", 1.0)])
    await store.close()


async def test_a_server_that_answers_nonsense_is_an_unavailable_store(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.set("allmrec:odd:live:u", "not a sorted set")
    store = RedisStore(redis_url, "odd", RedisStoreConfig(timeout_seconds=5))
    with pytest.raises(StoreError):
        await store.live_history("u")
    await store.close()


async def test_the_embedded_server_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    for moment in (1.0, 2.0):
        server = EmbeddedRedis(tmp_path)
        await server.start()
        store = RedisStore(server.url, "x", RedisStoreConfig(timeout_seconds=5))
        await store.record([Event("u", f"i{moment}", moment)])
        history = await store.live_history("u")
        await store.close()
        await server.close()
    assert history == ["i1.0", "i2.0"]


async def test_a_second_server_leaves_the_first_ones_files_alone(tmp_path: Path) -> None:
    first, second = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path)
    await first.start()
    await second.start()
    assert first.url != second.url
    store = RedisStore(first.url, "x", RedisStoreConfig(timeout_seconds=5))
    await store.record([Event("u", "a", 1.0)])
    other = RedisStore(second.url, "x", RedisStoreConfig(timeout_seconds=5))
    assert await other.live_history("u") == []
    for part in (store, other, first, second):
        await part.close()


async def test_a_server_that_cannot_read_its_files_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("not a log of commands\n")
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(EmbeddedRedisError, match="Bad file format"):
        await server.start()
    await server.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_lets_one_call_try_again_at_a_time() -> None:
    clock = Clock()
    breaker = Breaker(retry_seconds=2.0, clock=clock)
    assert breaker.allows()
    breaker.failed()
    assert breaker.open
    assert not breaker.allows()
    clock.now = 2.0
    assert breaker.allows()
    assert not breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers()), max_size=50), st.integers(1, 4))
def test_an_lru_keeps_the_entries_put_last(puts: list[tuple[int, int]], size: int) -> None:
    lru: LRU[int, int] = LRU(size)
    for key, value in puts:
        lru.put(key, value)
    kept: dict[int, int] = {}
    for key, value in reversed(puts):
        if len(kept) < size:
            kept.setdefault(key, value)
    assert len(lru) == len(kept)
    assert {key: lru.get(key) for key in kept} == kept


def test_an_lru_forgets_what_was_not_looked_at() -> None:
    lru: LRU[str, int] = LRU(2)
    lru.put("a", 1)
    lru.put("b", 2)
    lru.get("a")
    lru.put("c", 3)
    assert (lru.get("a"), lru.get("b"), lru.get("c")) == (1, None, 3)
