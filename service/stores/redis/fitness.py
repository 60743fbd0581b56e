"""Whether a Redis fits to keep users: their layout, and whether it keeps what it was given."""

from __future__ import annotations

from typing import Any

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from models.errors import ConfigError
from service.stores.redis.connect import Client
from service.stores.redis.keys import LAYOUT, LAYOUT_KEY, OLD_USERS, old_user

logger = structlog.get_logger(__name__)


async def check_fitness(client: Client, waitaof: bool) -> None:
    """Refuse a Redis whose users nobody would find again, and say what of its settings can lose events.

    One that forbids such questions is taken as it is.

    Args:
        client: of the Redis.
        waitaof: whether events shall wait for its disk.

    Raises:
        ConfigError: it does not fit.
        RedisError: it cannot be asked.
    """
    try:
        await _check_layout(client)
        await _check_servers(client, waitaof)
    except ResponseError as error:
        logger.warning("redis_not_checked", error=str(error))


async def _check_layout(client: Client) -> None:
    if await client.exists(LAYOUT_KEY):
        return
    async for key in client.scan_iter(match=OLD_USERS, count=10_000, _type="zset"):
        if old_user(key.decode()) is not None:
            raise ConfigError(
                "the Redis holds users in the layout of an earlier release: stop the services of that release, then run"
                " `allmrec-serve migrate-users` once"
            )
    await client.set(LAYOUT_KEY, LAYOUT)


async def _check_servers(client: Client, waitaof: bool) -> None:
    infos = [await _info(client)] if isinstance(client, Redis) else await _infos(client)
    policies = {info.get("maxmemory_policy", "noeviction") for info in infos if int(info.get("maxmemory", 0))}
    if policies - {"noeviction"}:
        logger.warning(
            "redis_may_evict_events",
            policy=", ".join(sorted(policies - {"noeviction"})),
            remedy="give the Redis of REDIS_URL maxmemory-policy noeviction, and a cache its own by ALLMREC_CACHE_URL",
        )
    appends = all(int(info.get("aof_enabled", 0)) for info in infos)
    if waitaof and not appends:
        raise ConfigError("ALLMREC_REDIS_WAITAOF needs a Redis with `appendonly yes`")
    if not appends:
        logger.warning("redis_forgets_on_restart", remedy="give the Redis of REDIS_URL `appendonly yes`")


async def _infos(client: RedisCluster) -> list[dict[str, Any]]:
    """Of every node that is written to."""
    return [await _info(client, target_nodes=node) for node in client.get_primaries()]


async def _info(client: Client, **where: Any) -> dict[str, Any]:
    info: dict[str, Any] = {}
    for section in ("memory", "persistence"):
        info |= await client.info(section, **where)
    return info
