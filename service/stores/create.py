"""From settings to stores: Redis where one is given, servers of our own where not."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack
from functools import partial

import structlog

from models.errors import ConfigError
from service.metrics import Metrics
from service.settings import Settings
from service.stores.local import LocalServer, LocalServerConfig
from service.stores.memory import MemoryCache, MemoryStore
from service.stores.port import Bounds, StoreError, UserStore, VectorCache
from service.stores.redis.address import Address, parse_address
from service.stores.redis.migrate import migrate_users
from service.stores.redis.users import RedisConfig, RedisStore
from service.stores.redis.vectors import RedisVectors

logger = structlog.get_logger(__name__)

IN_MEMORY = "memory://"
CACHE_MEMORY = 64 << 20
"""Bytes of the local cache: some 100,000 representations of 128 numbers."""


def bounds_of(settings: Settings) -> Bounds:
    """What is remembered of a user."""
    return Bounds(
        items=max(settings.live_seen_items, settings.live_history_items),
        unknown_items=settings.live_unknown_items,
        events=settings.live_events,
        life_seconds=settings.live_history_ttl_seconds,
        ahead_seconds=settings.clock_skew_seconds,
    )


def redis_config_of(settings: Settings) -> RedisConfig:
    """How to deal with Redis."""
    return RedisConfig(
        tenant=settings.tenant,
        connections=settings.redis_connections,
        timeout_seconds=settings.redis_timeout_ms / 1000,
        write_timeout_seconds=settings.redis_write_timeout_ms / 1000,
        retry_seconds=settings.redis_retry_seconds,
        waitaof=settings.redis_waitaof and settings.redis_url is not None,
    )


async def create_stores(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> tuple[UserStore, VectorCache]:
    """The stores, reached where they can be; what must be closed goes onto `stack`.

    Raises:
        ConfigError: a URL is none, or the Redis does not fit.
        LocalServerError: a server of our own cannot run.
    """
    users = await _create_users(settings, await _users_url(settings, stack), metrics, stack)
    return users, await _create_cache(settings, metrics, stack)


async def migrate_stored_users(settings: Settings) -> int:
    """Move users from the layout of the first version to this one's, and return how many.

    Raises:
        AllmrecError: the Redis or the server of our own cannot be had.
    """
    async with AsyncExitStack() as stack:
        url = await _users_url(settings, stack)
        if url == IN_MEMORY:
            return 0
        return await migrate_users(_address("REDIS_URL", url), redis_config_of(settings), bounds_of(settings))


async def _users_url(settings: Settings, stack: AsyncExitStack) -> str:
    """The one that is given, or that of a server of our own."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    server = LocalServer(settings.redis_dir, LocalServerConfig(appendfsync=settings.redis_appendfsync))
    stack.push_async_callback(server.close)
    await server.start()
    return server.url


async def _create_users(settings: Settings, url: str, metrics: Metrics, stack: AsyncExitStack) -> UserStore:
    bounds = bounds_of(settings)
    if url == IN_MEMORY:
        logger.warning("users_in_memory", remedy="what users do is lost on restart: unset REDIS_URL, or give a Redis")
        return MemoryStore(bounds, settings.user_cache_size)
    store = RedisStore(
        _address("REDIS_URL", url),
        redis_config_of(settings),
        bounds,
        metrics.store_failed,
        partial(_note, metrics, "users"),
        metrics.store,
    )
    stack.push_async_callback(store.close)
    with contextlib.suppress(StoreError):  # the service starts without it, as it goes on without it
        await store.connect()
    return store


async def _create_cache(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> VectorCache:
    given = settings.cache_url or settings.redis_url
    url = None if given is None else given.get_secret_value()
    if url == IN_MEMORY:
        return MemoryCache(settings.user_cache_size)
    if url is None:
        # A server of its own: representations neither take the events' memory nor wait for their disk.
        server = LocalServer(None, LocalServerConfig(max_memory=CACHE_MEMORY))
        stack.push_async_callback(server.close)
        await server.start()
        url = server.url
    cache = RedisVectors(
        _address("ALLMREC_CACHE_URL", url),
        redis_config_of(settings),
        settings.representation_places,
        settings.representation_ttl_seconds,
        metrics.store_failed,
        partial(_note, metrics, "cache"),
        metrics.store,
    )
    stack.push_async_callback(cache.close)
    await cache.connect()
    return cache


def _address(setting: str, url: str) -> Address:
    try:
        return parse_address(url)
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error


def _note(metrics: Metrics, store: str, up: bool) -> None:
    metrics.store_up.labels(store).set(up)
