"""A server of our own: what it keeps, and when it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.stores.local import LocalServer, LocalServerError
from service.stores.port import Event
from service.stores.redis import RedisStore, RedisStoreConfig

pytestmark = pytest.mark.anyio

CATALOGUE = "films"


async def test_the_local_server_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    for moment in (1.0, 2.0):
        server = LocalServer(tmp_path)
        await server.start()
        store = RedisStore(server.url, RedisStoreConfig(timeout_seconds=5))
        await store.record(CATALOGUE, [Event("u", f"i{moment}", moment)])
        history = await store.live_history(CATALOGUE, "u")
        await store.close()
        await server.close()
    assert history == ["i1.0", "i2.0"]


async def test_a_second_server_leaves_the_first_ones_files_alone(tmp_path: Path) -> None:
    first, second = LocalServer(tmp_path), LocalServer(tmp_path)
    await first.start()
    await second.start()
    assert first.url != second.url
    store = RedisStore(first.url, RedisStoreConfig(timeout_seconds=5))
    await store.record(CATALOGUE, [Event("u", "a", 1.0)])
    other = RedisStore(second.url, RedisStoreConfig(timeout_seconds=5))
    assert await other.live_history(CATALOGUE, "u") == []
    for part in (store, other, first, second):
        await part.close()


async def test_a_server_that_cannot_read_its_files_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("not a log of commands\n")
    server = LocalServer(tmp_path)
    with pytest.raises(LocalServerError, match="Bad file format"):
        await server.start()
    await server.close()
