"""The items that a user met, in little room."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from service.stores.names import Names

MEAN_ITEMS = 100
"""A process that remembers n users remembers n times as many of their items: 24 bytes each, and each name once."""

_NAMES = Names(100_000)


@dataclass(frozen=True)
class Met:
    """An item at the latest time that a user met it; among equal times, later arrivals are later."""

    item_id: str
    moment: int
    arrival: int


class Trail(Sequence[Met]):
    """Every item once, oldest first.

    Args:
        item_ids: n items, in any order.
        moments: (n,) int64 when each was met, in microseconds since 1970.
        arrivals: (n,) int64 the number of the event that said so.

    Attributes:
        item_ids: n items, oldest first; users share their names.
        moments: (n,) int64 when each was met.
        arrivals: (n,) int64 the number of the event that said so.
    """

    __slots__ = ("arrivals", "item_ids", "moments")

    def __init__(self, item_ids: Sequence[str], moments: np.ndarray, arrivals: np.ndarray) -> None:
        order = np.lexsort((arrivals, moments))
        self.item_ids = tuple(_NAMES.share(item_ids[place]) for place in order.tolist())
        self.moments, self.arrivals = moments[order], arrivals[order]

    @classmethod
    def of(cls, met: Iterable[Met]) -> Trail:
        """Of items in any order."""
        met = list(met)
        numbers = np.array([(each.moment, each.arrival) for each in met], dtype=np.int64).reshape(-1, 2)
        return cls([each.item_id for each in met], numbers[:, 0], numbers[:, 1])

    def after(self, met: Sequence[Met], forgotten: Collection[str]) -> Trail:
        """With items at new places, and without some."""
        gone = {*forgotten, *(each.item_id for each in met)}
        kept = [place for place, item_id in enumerate(self.item_ids) if item_id not in gone]
        new = Trail.of(met)
        return Trail(
            [*(self.item_ids[place] for place in kept), *new.item_ids],
            np.concatenate((self.moments[kept], new.moments)),
            np.concatenate((self.arrivals[kept], new.arrivals)),
        )

    def __len__(self) -> int:
        """How many items."""
        return len(self.item_ids)

    @overload
    def __getitem__(self, place: int) -> Met: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Met, ...]: ...
    def __getitem__(self, place: int | slice) -> Met | tuple[Met, ...]:
        """One of them, or several."""
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(len(self))))
        return Met(self.item_ids[place], int(self.moments[place]), int(self.arrivals[place]))

    def __iter__(self) -> Iterator[Met]:
        """Oldest first."""
        return map(Met, self.item_ids, self.moments.tolist(), self.arrivals.tolist())

    def __eq__(self, other: object) -> bool:
        """Whether they are the same items at the same places."""
        if not isinstance(other, Trail):
            return NotImplemented
        return (
            self.item_ids == other.item_ids
            and np.array_equal(self.moments, other.moments)
            and np.array_equal(self.arrivals, other.arrivals)
        )

    def __hash__(self) -> int:
        """By items."""
        return hash(self.item_ids)

    def __repr__(self) -> str:
        """How many, as there may be thousands."""
        return f"Trail({len(self)} items)"


EMPTY = Trail.of(())


def in_order(met: Iterable[Met]) -> tuple[Met, ...]:
    """Oldest first."""
    return tuple(sorted(met, key=lambda each: (each.moment, each.arrival)))
