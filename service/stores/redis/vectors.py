"""`VectorCache` in Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from service.stores.redis.address import Address
from service.stores.redis.channel import HANG, Channel, OnFailure, Timer, untimed
from service.stores.redis.connect import Client, connect, get_to_know
from service.stores.redis.keys import Keys
from service.stores.redis.users import RedisConfig
from service.stores.redis.watch import Watch

DIGEST_BYTES = 32


class RedisVectors:
    """Cached representations in a fixed number of places, so that they never take more memory than that.

    A representation's digest says its place, and stands before it; what stood there before is gone.

    Args:
        address: where.
        config: connections and times.
        places: how many.
        life_seconds: of a representation.
        on_failure: called for every operation that fails.
        on_state: called with whether the server is there.
        timer: around every operation.
    """

    def __init__(
        self,
        address: Address,
        config: RedisConfig,
        places: int,
        life_seconds: int,
        on_failure: OnFailure = lambda *_: None,
        on_state: Callable[[bool], None] = lambda _: None,
        timer: Timer = untimed,
    ) -> None:
        self._places = places
        self._life_seconds = life_seconds
        self._keys = Keys(config.tenant)
        patience, size = config.timeout_seconds, config.connections
        self._look_patience = HANG * patience
        watching = connect(address, 1, self._look_patience)
        self._watch = Watch("cache", watching, config.retry_seconds, self._look_patience, on_state, self._check)
        self._channel = Channel("cache", connect(address, size), size, patience, self._watch, on_failure, timer)

    async def connect(self) -> None:
        """Look for the server, and look after it from now on."""
        await self._watch.start()

    async def get(self, key: bytes, patience: float | None = None) -> bytes | None:
        """See `VectorCache.get`."""
        place = self._place(key)
        command = cast("Callable[[], Awaitable[bytes | None]]", lambda: self._channel.client.get(place))
        value = await self._channel.call(command, patience, place)
        return value[DIGEST_BYTES:] if value is not None and value.startswith(key) else None

    async def put(self, key: bytes, value: bytes) -> None:
        """See `VectorCache.put`."""
        place = self._place(key)
        value = key + value
        await self._channel.call(lambda: self._channel.client.set(place, value, ex=self._life_seconds), key=place)

    async def close(self) -> None:
        """Close the connections."""
        await self._watch.close()
        await self._channel.close()

    async def _check(self, _: Client) -> None:
        await get_to_know(self._look_patience, self._channel.client)

    def _place(self, key: bytes) -> str:
        return self._keys.vector(int.from_bytes(key[:8], "big") % self._places)
