"""Collects rows from an importer, compactly, and turns them into a `Dataset`."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
import polars as pl

from models.config import Config
from models.errors import DataError
from training.data.dataset import ITEMS_SCHEMA, Dataset, DatasetInfo, Reading
from training.data.importing.filtering import first_of_pairs, k_core
from training.data.importing.ledger import BadRowError, Ledger, OnBadRow
from training.data.importing.times import MICROSECONDS

PARTED = "\x1f"
"""No text holds it: it counts as a space."""


class FilterConfig(Config):
    """Which good rows stay.

    Attributes:
        min_user_interactions, min_item_interactions: the k-core; 1 asks for nothing.
        min_rating: interactions rated lower are left out; None keeps all.
        drop_repeats: of a user's interactions with the same item keep only the first.
        drop_unseen_items: leave items without any interaction out of the catalogue.
    """

    min_user_interactions: int = 1
    min_item_interactions: int = 1
    min_rating: float | None = None
    drop_repeats: bool = False
    drop_unseen_items: bool = False


class DatasetBuilder:
    """Takes items first, then interactions; 24 bytes for each of these.

    Args:
        on_bad_row: the policy of both ledgers.
        needs_rating: whether an interaction without rating is a bad row.

    Attributes:
        items, interactions: the ledgers of the two tables.
        joined: the ledgers of tables that interactions were joined from.
        item_codes, users: the number of each id so far.
        unusable_items: items with an id, but no usable row.
        told: by id what rows of interactions say of an item: its title as it stands there, and its parsed texts.
        titles: by number an item's title as it stands there.
        readings: what each file was taken for.
        warnings: what may have been meant otherwise.
    """

    def __init__(self, on_bad_row: OnBadRow, needs_rating: bool = False) -> None:
        self.items = Ledger(on_bad_row)
        self.interactions = Ledger(on_bad_row)
        self.joined: dict[str, Ledger] = {}
        self.item_codes: dict[str, int] = {}
        self.users: dict[str, int] = {}
        self.unusable_items: set[str] = set()
        self.told: dict[str, tuple[Any, tuple[str, str, tuple[str, ...]]]] = {}
        self.titles: dict[int, Any] = {}
        self.readings: list[Reading] = []
        self.warnings: list[str] = []
        self._needs_rating = needs_rating
        self._texts: list[tuple[str, str, tuple[str, ...]]] = []
        self._users, self._items = array("i"), array("i")
        self._times, self._ratings = array("q"), array("d")

    def add_item(self, item_id: str, title: str, description: str, categories: tuple[str, ...]) -> None:
        """Add an item. A row that says the same again is booked as dropped.

        Raises:
            BadRowError: the id stands for other text already.
        """
        text = (title, description, categories)
        code = self.item_codes.get(item_id)
        if code is None:
            self.item_codes[item_id] = len(self._texts)
            self._texts.append(text)
        elif self._texts[code] == text:
            self.items.drop("repeated item", 1)
        else:
            raise BadRowError("item id twice", f"item {item_id!r} came before with other text; leave one of them")

    def item_code(self, item_id: str) -> int:
        """The number of an item.

        Raises:
            BadRowError: it is unknown.
        """
        code = self.item_codes.get(item_id)
        if code is None and item_id in self.unusable_items:
            detail = f"item {item_id!r} has no usable row among the items; mend it"
            raise BadRowError("item without usable text", detail)
        if code is None:
            near = next((each for each in _alike(item_id) if each in self.item_codes), None)
            hint = "add it to the items, or remove the interaction"
            if near is not None:
                hint = f"{near!r} is: write ids the same way in both files"
            detail = f"item {item_id!r} is not among the items; {hint}"
            raise BadRowError("unknown item", detail)
        return code

    def user_code(self, user_id: str) -> int:
        """The number of a user, a new one if need be."""
        return self.users.setdefault(user_id, len(self.users))

    def add_interaction(self, user: int, item: int, moment: int, rating: float) -> None:
        """Add an interaction.

        Args:
            user, item: their numbers.
            moment: microseconds since 1970.
            rating: NaN where there is none.

        Raises:
            BadRowError: there is no rating, but one is needed.
        """
        if self._needs_rating and math.isnan(rating):
            raise BadRowError("missing rating", "the rating is missing though --min-rating asks for it; fill it in")
        self._users.append(user)
        self._items.append(item)
        self._times.append(moment)
        self._ratings.append(rating)

    def build(self, info: DatasetInfo, filters: FilterConfig) -> Dataset:
        """Sort, filter and count: rating threshold, first of each user-item pair, k-core, in this order.

        Args:
            info: the counts in it are filled in.
            filters: what stays.

        Raises:
            DataError: nothing is left.
        """
        users, items = np.frombuffer(self._users, np.int32), np.frombuffer(self._items, np.int32)
        rows = self._kept(users, items, self._sorted(users), filters)
        if not len(rows):
            raise DataError(f"no interactions are left: {self._explain()}; filter less, or mend the input")
        seen = np.bincount(items[rows], minlength=len(self._texts)) > 0
        interactions, table = self._interactions(users, items, rows), self._catalogue()
        if filters.drop_unseen_items:
            self.items.drop("without interactions", int((~seen).sum()))
            table = table.filter(seen)
        counted = {
            "users": int((np.bincount(users[rows]) > 0).sum()),
            "unseen_items": len(table) - int(seen.sum()),
            "interactions": self.interactions.tally(),
            "items": self.items.tally(),
            "joined": {what: ledger.tally() for what, ledger in self.joined.items()},
            "readings": tuple(self.readings),
            "warnings": tuple(self.warnings),
        }
        return Dataset(info.model_copy(update=counted), interactions, table)

    def _sorted(self, users: np.ndarray) -> np.ndarray:
        """Row numbers by user, then time; equal times in the order of the source."""
        if not len(users):
            return users.astype(np.int64)
        ranks = pl.Series(list(self.users), dtype=pl.String).rank("dense").to_numpy().astype(np.int32)[users]
        times = np.frombuffer(self._times, np.int64)
        if (np.diff(times) >= 0).all():
            return np.argsort(ranks, kind="stable")
        return np.lexsort((times, ranks))

    def _kept(self, users: np.ndarray, items: np.ndarray, rows: np.ndarray, filters: FilterConfig) -> np.ndarray:
        """The rows that the filters leave; what goes is booked."""
        if filters.min_rating is not None:
            ratings = np.frombuffer(self._ratings, np.float64)
            rows = self._keep(rows, ratings[rows] >= filters.min_rating, f"rating below {filters.min_rating:g}")
        if filters.drop_repeats:
            rows = self._keep(rows, first_of_pairs(users[rows], items[rows]), "repeated user-item pair")
        least = filters.min_user_interactions, filters.min_item_interactions
        if max(least) <= 1:
            return rows
        reason = f"outside the core (at least {least[0]} a user, {least[1]} an item)"
        return self._keep(rows, k_core(users[rows], items[rows], *least), reason)

    def _interactions(self, users: np.ndarray, items: np.ndarray, rows: np.ndarray) -> pl.DataFrame:
        user_ids = pl.Series("user_id", list(self.users), dtype=pl.String)
        item_ids = pl.Series("item_id", list(self.item_codes), dtype=pl.String)
        interactions = pl.DataFrame(
            {
                "user_id": user_ids.gather(users[rows]),
                "item_id": item_ids.gather(items[rows]),
                "timestamp": np.frombuffer(self._times, np.int64)[rows] // MICROSECONDS,
            }
        )
        ratings = np.frombuffer(self._ratings, np.float64)[rows]
        if np.isnan(ratings).all():
            return interactions
        return interactions.with_columns(rating=pl.Series(ratings).fill_nan(None))

    def _catalogue(self) -> pl.DataFrame:
        titles, descriptions, categories = zip(*self._texts, strict=True)
        frame = pl.DataFrame(
            {
                "item_id": list(self.item_codes),
                "title": titles,
                "description": descriptions,
                "categories": [PARTED.join(names) or None for names in categories],
            },
            schema=dict.fromkeys(ITEMS_SCHEMA, pl.String),
        )
        # One text an item, parted at once: a list for each would be built one by one.
        return frame.with_columns(pl.col("categories").str.split(PARTED).fill_null([]))

    def _keep(self, rows: np.ndarray, keep: np.ndarray, reason: str) -> np.ndarray:
        self.interactions.drop(reason, int((~keep).sum()))
        return rows[keep]

    def _explain(self) -> str:
        """What became of all rows."""
        left_out = self.interactions.skipped + self.interactions.dropped
        examples = self.interactions.examples
        told = ", ".join(
            f"{count} {reason}" + (f" (first: {examples[reason]})" if reason in examples else "")
            for reason, count in left_out.items()
        )
        return f"of {self.interactions.read} rows read, {told or 'none was an interaction'}"


def _alike(item_id: str) -> list[str]:
    """How else programs write an id: without its leading zeros, or with them, in other case, as a float."""
    padded = [item_id.zfill(width) for width in range(len(item_id) + 1, len(item_id) + 4)]
    return [item_id.lstrip("0"), *padded, item_id.lower(), item_id.upper(), f"{item_id}.0", item_id.removesuffix(".0")]
