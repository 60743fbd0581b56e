"""What every user store does, run on all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.stores.memory import MemoryStore
from service.stores.port import Event, UserStore
from service.stores.redis import RedisStore, RedisStoreConfig

pytestmark = pytest.mark.anyio

KEPT = 3
CATALOGUE = "films"


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[UserStore]:
    if request.param == "memory":
        yield MemoryStore(KEPT, size=100)
        return
    redis = RedisStore(redis_url, RedisStoreConfig(history_items=KEPT, timeout_seconds=5))
    yield redis
    await redis.close()


async def test_an_unknown_user_has_no_history(store: UserStore) -> None:
    assert await store.live_history(CATALOGUE, "nobody") == []


async def test_events_are_kept_in_order_of_time(store: UserStore) -> None:
    await store.record(CATALOGUE, [Event("u", "later", 2.5), Event("v", "other", 1.0)])
    await store.record(CATALOGUE, [Event("u", "earlier", 1.5)])
    assert await store.live_history(CATALOGUE, "u") == ["earlier", "later"]
    assert await store.live_history(CATALOGUE, "v") == ["other"]


async def test_recording_twice_changes_nothing_and_an_old_report_does_not_move_an_item_back(store: UserStore) -> None:
    events = [Event("u", "a", 1.0), Event("u", "b", 2.0)]
    await store.record(CATALOGUE, events)
    await store.record(CATALOGUE, events)
    await store.record(CATALOGUE, [Event("u", "b", 0.5)])
    assert await store.live_history(CATALOGUE, "u") == ["a", "b"]


async def test_an_item_met_again_moves_to_its_latest_time(store: UserStore) -> None:
    await store.record(CATALOGUE, [Event("u", "a", 1.0), Event("u", "b", 2.0), Event("u", "a", 3.0)])
    assert await store.live_history(CATALOGUE, "u") == ["b", "a"]


async def test_only_the_latest_events_are_kept(store: UserStore) -> None:
    await store.record(CATALOGUE, [Event("u", f"i{moment}", float(moment)) for moment in range(5)])
    assert await store.live_history(CATALOGUE, "u") == ["i2", "i3", "i4"]


async def test_ids_may_hold_any_text(store: UserStore) -> None:
    await store.record(CATALOGUE, [Event("ü: \n*", "é\0 🎬", 1.0)])
    assert await store.live_history(CATALOGUE, "ü: \n*") == ["é\0 🎬"]


async def test_vectors_are_bytes_by_key(store: UserStore) -> None:
    assert await store.vector("k") is None
    await store.put_vector("k", b"\0\1\xff")
    assert await store.vector("k") == b"\0\1\xff"


async def test_catalogues_do_not_share_users(store: UserStore) -> None:
    await store.record("books", [Event("u", "a", 1.0)])
    assert await store.live_history("films", "u") == []
