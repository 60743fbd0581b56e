"""From the layout of the first version to this one's, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from models.errors import ConfigError
from service.stores.port import Bounds, Event, StoreError
from service.stores.redis.address import Address, Kind
from service.stores.redis.connect import connect
from service.stores.redis.keys import LAYOUT, LAYOUT_KEY, OLD_USERS, old_user
from service.stores.redis.users import RedisConfig, RedisStore

MOVING_PATIENCE = 30.0


async def migrate_users(
    address: Address, config: RedisConfig, bounds: Bounds, clock: Callable[[], float] = time.time
) -> int:
    """Move all users, and return how many. What was moved before an interruption is not moved twice.

    Args:
        address: where.
        config: connections and times.
        bounds: of what is remembered of a user.
        clock: seconds since 1970; events dated later happened now.

    Raises:
        ConfigError: it is a cluster, which the first version did not know.
        StoreError: the Redis cannot be reached.
    """
    if address.kind is Kind.CLUSTER:
        raise ConfigError("the earlier release knew no cluster: there is nothing to move")
    patient = {"timeout_seconds": MOVING_PATIENCE, "write_timeout_seconds": MOVING_PATIENCE, "waitaof": False}
    store = RedisStore(address, config.model_copy(update=patient), bounds)
    client = cast("Redis", connect(address, 2))
    moved = 0
    try:
        async for key in client.scan_iter(match=OLD_USERS, count=1000, _type="zset"):
            user = old_user(key.decode())
            if user is None:
                continue
            moments = cast("list[tuple[bytes, float]]", await client.zrange(key, 0, -1, withscores=True))
            events = [_event(member.decode(), seconds, clock()) for member, seconds in moments]
            await store.record({user: events})
            await client.delete(key)
            moved += 1
        await client.set(LAYOUT_KEY, LAYOUT)
    except (RedisError, OSError) as error:
        raise StoreError(f"{moved} users were moved, then Redis failed: {error}: run it again") from error
    finally:
        await client.aclose()
        await store.close()
    return moved


def _event(item_id: str, seconds: float, now: float) -> Event:
    """The first version kept neither ids nor types, and took times of the future, before which all else would stand."""
    return Event(f"moved:{round(seconds * 1e6)}:{item_id}", item_id, round(min(seconds, now) * 1e6))
