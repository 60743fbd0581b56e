"""Stores in this process's memory: `REDIS_URL=memory://`, and tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from service.stores.live_log import LiveLog
from service.stores.lru import LRU
from service.stores.port import NOBODY, Bounds, Change, Event, LiveUser, StoreError, UserKey
from service.stores.trail import MEAN_ITEMS


class MemoryStore:
    """`UserStore` that forgets everything on restart.

    Args:
        bounds: of what is remembered of a user.
        size: users remembered, if items, events and ids of each are no more than `MEAN_ITEMS`.
        clock: seconds since 1970.
    """

    def __init__(self, bounds: Bounds, size: int, clock: Callable[[], float] = time.time) -> None:
        self._bounds = bounds
        self._clock = clock
        self._logs: LRU[UserKey, LiveLog] = LRU(size, len, size * MEAN_ITEMS)

    async def connect(self) -> None:
        """Nothing to reach."""

    async def read(self, user: UserKey, cached: LiveUser = NOBODY, patience: float | None = None) -> LiveUser:  # noqa: ARG002
        """See `UserStore.read`."""
        log = self._logs.get(user)
        return NOBODY if log is None else log.user()

    async def record(self, events: Mapping[UserKey, Sequence[Event]]) -> dict[UserKey, Change | StoreError]:
        """See `UserStore.record`."""
        changes: dict[UserKey, Change | StoreError] = {}
        for user, their in events.items():
            now = int(self._clock() * 1e6)
            log = self._logs.get(user)
            if log is None:
                log = LiveLog(self._bounds, now)
            changes[user] = log.add(their, now)
            if log:
                self._logs.put(user, log)
        return changes

    async def events(self, user: UserKey) -> list[Event]:
        """See `UserStore.events`."""
        log = self._logs.get(user)
        return [] if log is None else log.events()

    async def close(self) -> None:
        """Nothing to let go of."""


class MemoryCache:
    """`VectorCache` of this process alone."""

    def __init__(self, size: int) -> None:
        self._vectors: LRU[bytes, bytes] = LRU(size)

    async def get(self, key: bytes, patience: float | None = None) -> bytes | None:  # noqa: ARG002
        """See `VectorCache.get`."""
        return self._vectors.get(key)

    async def put(self, key: bytes, value: bytes) -> None:
        """See `VectorCache.put`."""
        self._vectors.put(key, value)

    async def close(self) -> None:
        """Nothing to let go of."""
