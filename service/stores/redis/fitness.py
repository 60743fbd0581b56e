"""Whether a Redis fits to keep users: their layout, and whether it keeps what it was given."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from models.errors import ConfigError
from service.stores.patience import answer
from service.stores.redis.cluster import AWAY, Cluster
from service.stores.redis.connect import Client
from service.stores.redis.keys import LAYOUT, LAYOUT_KEY, OLD_USERS, old_user

logger = structlog.get_logger(__name__)


LOOK_SECONDS = 30.0
"""Users in the layout of before, once found, are looked for no more often: that asks for the name of every key."""


class Fitness:
    """Asks a Redis, again and again, until it fits.

    Args:
        waitaof: whether events shall wait for its disk.
        patience: seconds to wait for any one answer.
        clock: seconds, never set back.
    """

    def __init__(self, waitaof: bool, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._waitaof = waitaof
        self._patience = patience
        self._clock = clock
        self._found_old_users: float | None = None

    async def check(self, client: Client) -> None:
        """Refuse a Redis whose users nobody would find again, and say what of its settings can lose events.

        One that forbids such questions is taken as it is, and so is a node of a cluster that is away.

        Args:
            client: of the Redis.

        Raises:
            ConfigError: it does not fit.
            RedisError: it cannot be asked.
            TimeoutError: it does not answer.
        """
        try:
            await self._check_layout(client)
            await self._check_servers(client)
        except ResponseError as error:
            logger.warning("redis_not_checked", error=str(error))

    async def _check_layout(self, client: Client) -> None:
        if isinstance(client, Cluster):
            await self._mark(client)
            return
        if await answer(client.exists(LAYOUT_KEY), self._patience):
            return
        found = self._found_old_users
        if found is None or self._clock() >= found + LOOK_SECONDS:
            self._found_old_users = self._clock() if await self._has_old_users(client) else None
        if self._found_old_users is not None:
            raise ConfigError(
                "the Redis holds users in the layout of an earlier release: stop the services of that release, then run"
                " `allmrec-serve migrate-users` once"
            )
        await answer(client.set(LAYOUT_KEY, LAYOUT), self._patience)

    async def _mark(self, client: Cluster) -> None:
        """Say which layout this is: the first version knew no cluster. Not while the node is away where that stands."""
        try:
            await answer(client.set(LAYOUT_KEY, LAYOUT, nx=True), self._patience)
        except AWAY as error:
            logger.warning("redis_layout_not_marked", error=str(error) or type(error).__name__)

    async def _has_old_users(self, client: Redis) -> bool:
        cursor = None
        while cursor != 0:
            scan = client.scan(cursor or 0, match=OLD_USERS, count=1000, _type="zset")
            cursor, keys = await answer(scan, self._patience)
            if any(old_user(cast("bytes", key).decode()) is not None for key in keys):
                return True
        return False

    async def _check_servers(self, client: Client) -> None:
        infos = [await self._info(client)] if isinstance(client, Redis) else await self._infos(client)
        policies = {info.get("maxmemory_policy", "noeviction") for info in infos if int(info.get("maxmemory", 0))}
        if policies - {"noeviction"}:
            logger.warning(
                "redis_may_evict_events",
                policy=", ".join(sorted(policies - {"noeviction"})),
                remedy="give the Redis of REDIS_URL maxmemory-policy noeviction, and a cache one by ALLMREC_CACHE_URL",
            )
        appends = all(int(info.get("aof_enabled", 0)) for info in infos)
        if self._waitaof and not appends:
            raise ConfigError("ALLMREC_REDIS_WAITAOF needs a Redis with `appendonly yes`")
        if not appends:
            logger.warning("redis_forgets_on_restart", remedy="give the Redis of REDIS_URL `appendonly yes`")

    async def _infos(self, client: Cluster) -> list[dict[str, Any]]:
        """Of every node that is written to and is there."""
        infos = []
        for node in client.get_primaries():
            try:
                infos.append(await self._info(client, target_nodes=node))
            except AWAY as error:
                logger.warning("redis_node_not_checked", node=node.name, error=str(error) or type(error).__name__)
        return infos

    async def _info(self, client: Client, **where: Any) -> dict[str, Any]:
        info: dict[str, Any] = {}
        for section in ("memory", "persistence"):
            info |= await answer(client.info(section, **where), self._patience)
        return info
