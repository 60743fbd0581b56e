"""A store in this process's memory: where no Redis can run, and in tests."""

from __future__ import annotations

from collections.abc import Sequence

from service.stores.lru import LRU
from service.stores.port import Event


class MemoryStore:
    """`UserStore` that forgets everything on restart.

    Args:
        history_items: live events kept per user.
        size: users, and representations, kept.
    """

    def __init__(self, history_items: int, size: int) -> None:
        self._history_items = history_items
        self._histories: LRU[tuple[str, str], dict[str, float]] = LRU(size)
        self._vectors: LRU[str, bytes] = LRU(size)

    async def connect(self) -> None:
        """Nothing to reach."""

    async def live_history(self, catalogue: str, user_id: str) -> list[str]:
        """See `UserStore.live_history`."""
        times = self._histories.get((catalogue, user_id)) or {}
        return sorted(times, key=lambda item_id: (times[item_id], item_id))

    async def record(self, catalogue: str, events: Sequence[Event]) -> None:
        """See `UserStore.record`."""
        for event in events:
            times = dict(self._histories.get((catalogue, event.user_id)) or {})
            times[event.item_id] = max(event.timestamp, times.get(event.item_id, event.timestamp))
            kept = sorted(times.items(), key=lambda entry: (entry[1], entry[0]))[-self._history_items :]
            self._histories.put((catalogue, event.user_id), dict(kept))

    async def vector(self, key: str) -> bytes | None:
        """See `UserStore.vector`."""
        return self._vectors.get(key)

    async def put_vector(self, key: str, value: bytes) -> None:
        """See `UserStore.put_vector`."""
        self._vectors.put(key, value)

    async def close(self) -> None:
        """Nothing to let go of."""
