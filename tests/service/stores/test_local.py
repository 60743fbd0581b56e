"""A server of our own: what it keeps, and when it refuses."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.stores.local import LocalServer, LocalServerConfig, LocalServerError
from service.stores.port import Bounds, Event, UserKey
from service.stores.redis.address import parse_address
from service.stores.redis.users import RedisConfig, RedisStore
from tests.service.stores.conftest import pid_of, pids_of

pytestmark = pytest.mark.anyio

USER = UserKey("films", "u")


async def test_it_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    for moment in (1, 2):
        server = LocalServer(tmp_path)
        await server.start()
        store = RedisStore(parse_address(server.url), RedisConfig(timeout_seconds=5), Bounds())
        await store.record({USER: [Event(str(moment), f"i{moment}", moment)]})
        user = await store.read(USER)
        await store.close()
        await server.close()
    assert [met.item_id for met in user.met] == ["i1", "i2"]


async def test_a_folder_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than answering 202 to what nobody will find again."""
    monkeypatch.setattr("service.stores.local._CLAIM_SECONDS", 0.1)
    first, second = LocalServer(tmp_path), LocalServer(tmp_path)
    await first.start()
    with pytest.raises(LocalServerError, match=r"another service uses this folder.*ALLMREC_REDIS_DIR"):
        await second.start()
    await second.close()
    await first.close()
    third = LocalServer(tmp_path)
    await third.start()
    await third.close()


async def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    server = LocalServer(tmp_path / "file" / "folder")
    with pytest.raises(LocalServerError, match=r"events cannot be kept there.*REDIS_URL"):
        await server.start()
    await server.close()


@pytest.mark.parametrize("what", ["server", "shell", "folder"])
async def test_it_comes_back_whatever_of_it_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Twice, where it was, with all that it acknowledged."""
    monkeypatch.setattr("service.stores.local._LOOK_SECONDS", 0.05)
    server = LocalServer(tmp_path)
    await server.start()
    url, folder = server.url, Path(server.url.removeprefix("unix://")).parent
    for moment in (1, 2):
        pid = pid_of(server)
        if what == "folder":
            await asyncio.sleep(0.2)
            shutil.rmtree(folder)
        else:
            os.kill(pid if what == "server" else os.getpgid(pid), signal.SIGTERM)
        async with asyncio.timeout(20):
            while not (pids_of(server) - {pid} and await server._answers()):
                await asyncio.sleep(0.02)
        store = RedisStore(parse_address(url), RedisConfig(timeout_seconds=5), Bounds())
        await store.record({USER: [Event(str(moment), f"i{moment}", moment)]})
        assert len((await store.read(USER)).met) == moment
        await store.close()
    await server.close()
    assert not folder.exists()


async def test_a_server_that_hangs_is_killed_when_its_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is free then, and has what was acknowledged."""
    monkeypatch.setattr("service.stores.local._STOP_SECONDS", 0.2)
    server = LocalServer(tmp_path)
    await server.start()
    store = RedisStore(parse_address(server.url), RedisConfig(timeout_seconds=5), Bounds())
    await store.record({USER: [Event("1", "i1", 1)]})
    os.kill(pid_of(server), signal.SIGSTOP)
    async with asyncio.timeout(30):
        await store.close()
        await server.close()
    assert not Path(server.url.removeprefix("unix://")).parent.exists()
    again = LocalServer(tmp_path)
    await again.start()
    store = RedisStore(parse_address(again.url), RedisConfig(timeout_seconds=5), Bounds())
    assert [met.item_id for met in (await store.read(USER)).met] == ["i1"]
    await store.close()
    await again.close()


async def test_a_server_that_cannot_read_its_files_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("not a log of commands\n")
    server = LocalServer(tmp_path)
    with pytest.raises(LocalServerError, match="Bad file format"):
        await server.start()
    await server.close()


async def test_events_are_refused_before_they_are_evicted_and_a_cache_forgets(tmp_path: Path) -> None:
    events, cache = LocalServer(tmp_path), LocalServer(None, LocalServerConfig(max_memory=4 << 20))
    for server, policy, appends in ((events, "noeviction", 1), (cache, "allkeys-lru", 0)):
        await server.start()
        async with Redis.from_url(server.url) as redis:
            assert (await redis.info("memory"))["maxmemory_policy"] == policy
            assert (await redis.info("persistence"))["aof_enabled"] == appends
    async with Redis.from_url(events.url) as redis:
        assert (await redis.config_get("appendfsync"))["appendfsync"] == "always"
    await events.close()
    await cache.close()
