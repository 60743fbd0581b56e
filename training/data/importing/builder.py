"""Collects rows from an importer, compactly, and turns them into a `Dataset`."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
import polars as pl

from models.config import Config
from models.errors import DataError
from training.data.dataset import ITEMS_SCHEMA, Dataset, DatasetInfo
from training.data.importing.filtering import first_of_pairs, k_core
from training.data.importing.ledger import BadRowError, Ledger, OnBadRow
from training.data.importing.values import MICROSECONDS, parse_id, parse_rating, parse_time


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
    """Takes items first, then interactions.

    Args:
        on_bad_row: the policy of both ledgers.
        needs_rating: whether an interaction without rating is a bad row.

    Attributes:
        items, interactions: the ledgers of the two tables.
    """

    def __init__(self, on_bad_row: OnBadRow, needs_rating: bool = False) -> None:
        self.items = Ledger(on_bad_row)
        self.interactions = Ledger(on_bad_row)
        self._needs_rating = needs_rating
        self._item_codes: dict[str, int] = {}
        self._user_codes: dict[str, int] = {}
        self._texts: list[tuple[str, str, tuple[str, ...]]] = []
        self._unusable_items: set[str] = set()
        self._users, self._rated_items = array("q"), array("q")
        self._times, self._ratings = array("q"), array("d")

    def add_item(self, raw_id: Any, title: str, description: str, categories: tuple[str, ...]) -> None:
        """Add an item. A row that says the same again is booked as dropped.

        Raises:
            BadRowError: it has no id or no title, or the id stands for other text already.
        """
        item_id = parse_id(raw_id, "item")
        text = (title, description, categories)
        code = self._item_codes.get(item_id)
        if code is not None:
            if self._texts[code] != text:
                raise BadRowError("item id twice", f"item {item_id!r} came before with other text; leave one of them")
            self.items.drop("repeated item", 1)
            return
        if not title:
            self._unusable_items.add(item_id)
            raise BadRowError("empty title", f"item {item_id!r} has an empty title; give it one")
        self._item_codes[item_id] = len(self._texts)
        self._texts.append(text)

    def has_item(self, raw_id: Any) -> bool:
        """Whether an item of this id was added."""
        return parse_id(raw_id, "item") in self._item_codes

    def add_interaction(self, raw_user: Any, raw_item: Any, time: Any, rating: Any) -> None:
        """Add an interaction with an item added before.

        Raises:
            BadRowError: an id or the time is missing or broken, the item is unknown, or the rating broken.
        """
        user_id, item_id = parse_id(raw_user, "user"), parse_id(raw_item, "item")
        item = self._item_codes.get(item_id)
        if item is None:
            if item_id in self._unusable_items:
                raise BadRowError(
                    "item without usable text", f"item {item_id!r} has no usable row among the items; mend it"
                )
            raise BadRowError(
                "unknown item",
                f"item {item_id!r} is not among the items; add it to the items, or remove the interaction",
            )
        moment, stars = parse_time(time), parse_rating(rating)
        if self._needs_rating and math.isnan(stars):
            raise BadRowError("missing rating", "the rating is missing though --min-rating asks for it; fill it in")
        self._users.append(self._user_codes.setdefault(user_id, len(self._user_codes)))
        self._rated_items.append(item)
        self._times.append(moment)
        self._ratings.append(stars)

    def build(self, info: DatasetInfo, filters: FilterConfig) -> Dataset:
        """Sort, filter and count: rating threshold, first of each user-item pair, k-core, in this order.

        Args:
            info: the counts in it are filled in.
            filters: what stays.

        Raises:
            DataError: nothing is left.
        """
        item_ids = pl.Series("item_id", list(self._item_codes), dtype=pl.String)
        user_ids = pl.Series("user_id", list(self._user_codes), dtype=pl.String)
        users, items = np.frombuffer(self._users, np.int64), np.frombuffer(self._rated_items, np.int64)
        times, ratings = np.frombuffer(self._times, np.int64), np.frombuffer(self._ratings, np.float64)
        rows = np.lexsort((times, user_ids.rank("dense").to_numpy()[users])) if len(users) else users

        if filters.min_rating is not None:
            rows = self._keep(rows, ratings[rows] >= filters.min_rating, f"rating below {filters.min_rating:g}")
        if filters.drop_repeats:
            rows = self._keep(rows, first_of_pairs(users[rows], items[rows]), "repeated user-item pair")
        least = filters.min_user_interactions, filters.min_item_interactions
        rows = self._keep(
            rows,
            k_core(users[rows], items[rows], *least),
            f"outside the core (at least {least[0]} a user, {least[1]} an item)",
        )
        if not len(rows):
            raise DataError(f"no interactions are left: {self._explain()}; filter less, or mend the input")

        interactions = pl.DataFrame(
            {
                "user_id": user_ids.gather(users[rows]),
                "item_id": item_ids.gather(items[rows]),
                "timestamp": times[rows] // MICROSECONDS,
            }
        )
        if not np.isnan(ratings[rows]).all():
            interactions = interactions.with_columns(rating=pl.Series(ratings[rows]).fill_nan(None))
        titles, descriptions, categories = zip(*self._texts, strict=True)
        table = pl.DataFrame(
            {
                "item_id": item_ids,
                "title": titles,
                "description": descriptions,
                "categories": [list(names) for names in categories],
            },
            schema=dict(ITEMS_SCHEMA),
        )
        seen = np.bincount(items[rows], minlength=len(table)) > 0
        if filters.drop_unseen_items:
            self.items.drop("without interactions", int((~seen).sum()))
            table = table.filter(seen)
        counted = {
            "users": interactions["user_id"].n_unique(),
            "unseen_items": len(table) - int(seen.sum()),
            "interactions": self.interactions.tally(),
            "items": self.items.tally(),
        }
        return Dataset(info.model_copy(update=counted), interactions, table)

    def _keep(self, rows: np.ndarray, keep: np.ndarray, reason: str) -> np.ndarray:
        self.interactions.drop(reason, int((~keep).sum()))
        return rows[keep]

    def _explain(self) -> str:
        left_out = self.interactions.skipped + self.interactions.dropped
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        return f"of {self.interactions.read} rows read, {told or 'none was an interaction'}"
