"""The store in Redis.

Keys:
    allmrec:<catalogue>:live:<user id>   sorted set of item ids by timestamp
    allmrec:x:<hash>                     representation, little-endian float32
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from models.config import Config
from service.stores.breaker import Breaker
from service.stores.port import Event, StoreError

logger = structlog.get_logger(__name__)

PREFIX = "allmrec:"

Result = TypeVar("Result")


class RedisStoreConfig(Config):
    """Settings of the Redis store; see the settings of the same names."""

    timeout_seconds: float = 0.1
    retry_seconds: float = 1.0
    vector_ttl_seconds: int = 86_400
    history_items: int = 50
    history_ttl_seconds: int = 30 * 86_400


class RedisStore:
    """`UserStore` in Redis. A dead Redis costs one timeout every `retry_seconds`, not one a request.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        config: waits and lives.
    """

    def __init__(self, url: str, config: RedisStoreConfig) -> None:
        self._config = config
        self._breaker = Breaker(config.retry_seconds)
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=config.timeout_seconds,
            socket_connect_timeout=config.timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )

    async def connect(self) -> None:
        """See `UserStore.connect`."""
        await self._call(self._redis.ping)

    async def live_history(self, catalogue: str, user_id: str) -> list[str]:
        """See `UserStore.live_history`."""
        key = self._live(catalogue, user_id)
        members = cast("list[bytes]", await self._call(lambda: self._redis.zrange(key, 0, -1)))
        return [member.decode() for member in members]

    async def record(self, catalogue: str, events: Sequence[Event]) -> None:
        """See `UserStore.record`."""

        def send() -> Awaitable[object]:
            pipeline = self._redis.pipeline(transaction=True)
            for event in events:
                pipeline.zadd(self._live(catalogue, event.user_id), {event.item_id: event.timestamp}, gt=True)
            for key in {self._live(catalogue, event.user_id) for event in events}:
                pipeline.zremrangebyrank(key, 0, -self._config.history_items - 1)
                pipeline.expire(key, self._config.history_ttl_seconds)
            return pipeline.execute()

        await self._call(send)

    async def vector(self, key: str) -> bytes | None:
        """See `UserStore.vector`."""
        return cast("bytes | None", await self._call(lambda: self._redis.get(f"{PREFIX}x:{key}")))

    async def put_vector(self, key: str, value: bytes) -> None:
        """See `UserStore.put_vector`."""
        name, life = f"{PREFIX}x:{key}", self._config.vector_ttl_seconds
        await self._call(lambda: self._redis.set(name, value, ex=life))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _live(self, catalogue: str, user_id: str) -> str:
        return f"{PREFIX}{catalogue}:live:{user_id}"

    async def _call(self, command: Callable[[], Awaitable[Result]]) -> Result:
        if not self._breaker.allows():
            raise StoreError("Redis failed a moment ago: try again in a second")
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                result = await command()
        except (RedisError, OSError, TimeoutError) as error:
            if not self._breaker.open:
                logger.warning("redis_unavailable", error=str(error) or type(error).__name__)
            self._breaker.failed()
            raise StoreError("Redis cannot be reached: try again in a second") from error
        if self._breaker.open:
            logger.info("redis_available")
        self._breaker.succeeded()
        return result
