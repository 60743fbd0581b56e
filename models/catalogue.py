"""The items of one shop: ids, text, categories, and how often each was seen in training.

Items are numbered 1..N everywhere; 0 is padding, and row 0 of every table is the padding row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
import polars as pl
import torch

PADDING_ITEM = 0
MAX_GENRES = 30
MAX_GENRE_SHARE = 0.8


class Catalogue:
    """An immutable item table.

    Args:
        item_ids: N public item ids, unique.
        titles: N titles, none empty.
        descriptions: N descriptions, possibly empty.
        categories: N tuples of category names, possibly empty.
        interactions: (N,) training interactions of each item; 0 marks an item unknown to the CF backbone.

    Attributes keep one leading padding row, so that `titles[i]` is the title of item `i` in 1..N.
    """

    def __init__(
        self,
        item_ids: Sequence[str],
        titles: Sequence[str],
        descriptions: Sequence[str],
        categories: Sequence[Iterable[str]],
        interactions: Sequence[int] | np.ndarray,
    ) -> None:
        sizes = {len(item_ids), len(titles), len(descriptions), len(categories), len(interactions)}
        if len(sizes) != 1:
            raise ValueError(f"columns of different lengths: {sorted(sizes)}")
        self.item_ids: list[str] = ["", *item_ids]
        self.titles: list[str] = ["", *titles]
        self.descriptions: list[str] = ["", *descriptions]
        self.categories: list[tuple[str, ...]] = [(), *(tuple(names) for names in categories)]
        self.interactions: np.ndarray = np.concatenate([[0], np.asarray(interactions, dtype=np.int64)])
        self._index = {item_id: index for index, item_id in enumerate(item_ids, start=1)}
        if len(self._index) != len(item_ids):
            raise ValueError("item ids are not unique")

    def with_interactions(self, interactions: np.ndarray) -> Catalogue:
        """The same items, met so often (N,)."""
        texts = (self.item_ids[1:], self.titles[1:], self.descriptions[1:], self.categories[1:])
        return Catalogue(*texts, interactions)

    def __len__(self) -> int:
        """The number of items N, the padding row not counted."""
        return len(self._index)

    def index_of(self, item_id: str) -> int | None:
        """The number 1..N of `item_id`, or None if the catalogue does not have it."""
        return self._index.get(item_id)

    def indices_of(self, item_ids: Iterable[str]) -> tuple[list[int], list[str]]:
        """The numbers of the known ids, in order, and the ids that are unknown."""
        known, missing = [], []
        for item_id in item_ids:
            index = self._index.get(item_id)
            if index is None:
                missing.append(item_id)
            else:
                known.append(index)
        return known, missing

    @property
    def trained(self) -> np.ndarray:
        """(N+1,) bool: the items that the CF backbone saw in training."""
        return self.interactions > 0

    @cached_property
    def by_popularity(self) -> np.ndarray:
        """(N,) item numbers, most interactions first; equal counts in catalogue order."""
        return np.argsort(-self.interactions[1:], kind="stable") + 1

    @cached_property
    def category_items(self) -> dict[str, np.ndarray]:
        """Category name to the numbers of its items, largest category first."""
        members: dict[str, list[int]] = {}
        for index, names in enumerate(self.categories):
            for name in names:
                members.setdefault(name, []).append(index)
        ordered = sorted(members.items(), key=lambda entry: (-len(entry[1]), entry[0]))
        return {name: np.asarray(items, dtype=np.int64) for name, items in ordered}

    @cached_property
    def genres(self) -> dict[str, np.ndarray]:
        """The categories that `GET /explain/genre` chooses among: at most 30, the largest first.

        A category of more than four items in five, such as a shop's root, tells nothing and is left out.
        """
        most = MAX_GENRE_SHARE * len(self)
        telling = ((name, items) for name, items in self.category_items.items() if len(items) <= most)
        return dict(islice(telling, MAX_GENRES))

    def genre_centroids(self, table: torch.Tensor) -> torch.Tensor:
        """(G, size) mean rows of `table` (N+1, size) over the items of each genre, weighted by interactions + 1."""
        rows = []
        for items in self.genres.values():
            weights = torch.from_numpy(self.interactions[items] + 1.0).to(table)
            rows.append(weights @ table[items.tolist()] / weights.sum())
        return torch.stack(rows) if rows else table[:0]

    def to_frame(self) -> pl.DataFrame:
        """One row an item, without the padding row: the layout of a bundle's `items.parquet`."""
        return pl.DataFrame(
            {
                "item_id": self.item_ids[1:],
                "title": self.titles[1:],
                "description": self.descriptions[1:],
                "categories": [list(names) for names in self.categories[1:]],
                "interactions": self.interactions[1:],
            },
            schema={
                "item_id": pl.String,
                "title": pl.String,
                "description": pl.String,
                "categories": pl.List(pl.String),
                "interactions": pl.Int64,
            },
        )

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Catalogue:
        """The inverse of `to_frame`."""
        return cls(
            item_ids=frame["item_id"].to_list(),
            titles=frame["title"].to_list(),
            descriptions=frame["description"].to_list(),
            categories=frame["categories"].to_list(),
            interactions=frame["interactions"].to_numpy(),
        )
