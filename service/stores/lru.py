"""A bounded mapping that forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class LRU(Generic[Key, Value]):
    """At most `size` entries, and no more than weigh `capacity`, though always the latest.

    Args:
        size: how many.
        weight: of an entry, when it is put; if not given, all weigh nothing.
        capacity: what all of them may weigh.
    """

    def __init__(self, size: int, weight: Callable[[Value], int] | None = None, capacity: int = 0) -> None:
        self._size = size
        self._weight = weight or (lambda _: 0)
        self._capacity = capacity
        self._load = 0
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        """The number of entries."""
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """The value, now the most recently used, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, value: Value) -> None:
        """Keep the value, forgetting others if need be."""
        weight = self._weight(value)
        _, before = self._entries.pop(key, (value, 0))
        self._load += weight - before
        self._entries[key] = value, weight
        while len(self._entries) > self._size or (self._load > self._capacity and len(self._entries) > 1):
            _, (_, gone) = self._entries.popitem(last=False)
            self._load -= gone
