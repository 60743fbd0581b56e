"""Leave-last-out: the last item of a user is for test, the one before for validation (A-LLMRec section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import polars as pl

from models.catalogue import PADDING_ITEM, Catalogue
from models.errors import DataError
from training.data.dataset import Dataset
from training.data.negatives import NegativeSampler

MIN_EVALUATED = 3
COLD_USER_INTERACTIONS = 3
TAIL_SHARE = 0.35


class Holdout(StrEnum):
    """Which of the held-out items is predicted."""

    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class SequenceSplit:
    """A dataset as sequences of item numbers 1..N.

    Attributes:
        user_ids: U public ids, in the dataset's order.
        catalogue: all items; `catalogue.interactions` counts the training interactions only.
        train: U arrays, oldest first, never empty. Users with fewer than three interactions have all of
            theirs here.
        validation: (U,) the last but one item, padding for users with fewer than three interactions.
        test: (U,) the last item, padding for users with fewer than three interactions.
    """

    user_ids: Sequence[str]
    catalogue: Catalogue
    train: Sequence[np.ndarray]
    validation: np.ndarray
    test: np.ndarray

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> SequenceSplit:
        """Split `dataset`.

        Raises:
            DataError: it has no interactions, or one of an item that is not among its items.
        """
        if dataset.interactions.is_empty():
            raise DataError(f"dataset {dataset.info.name} has no interactions: filter it less")
        item_ids = dataset.items["item_id"]
        numbers = pl.DataFrame({"item_id": item_ids, "number": np.arange(1, len(item_ids) + 1)})
        joined = dataset.interactions.join(numbers, on="item_id", how="left", maintain_order="left")
        unknown = joined.filter(pl.col("number").is_null())["item_id"]
        if len(unknown):
            raise DataError(
                f"dataset {dataset.info.name} has interactions with item {unknown[0]!r},"
                " which is not among its items: import it again"
            )
        by_user = joined.group_by("user_id", maintain_order=True).agg("number")
        sequences = [items.to_numpy() for items in by_user["number"]]
        train = [items[:-2] if len(items) >= MIN_EVALUATED else items for items in sequences]
        held_out = np.array(
            [items[-2:] if len(items) >= MIN_EVALUATED else (PADDING_ITEM, PADDING_ITEM) for items in sequences],
            dtype=np.int64,
        )
        counts = np.bincount(np.concatenate(train), minlength=len(item_ids) + 1)
        catalogue = Catalogue(
            item_ids=item_ids.to_list(),
            titles=dataset.items["title"].to_list(),
            descriptions=dataset.items["description"].to_list(),
            categories=dataset.items["categories"].to_list(),
            interactions=counts[1:],
        )
        return cls(by_user["user_id"].to_list(), catalogue, train, held_out[:, 0], held_out[:, 1])

    def __len__(self) -> int:
        """The number of users U."""
        return len(self.user_ids)

    def target(self, holdout: Holdout) -> np.ndarray:
        """(U,) the items to predict; padding for users who are not evaluated."""
        return self.test if holdout is Holdout.TEST else self.validation

    def history(self, user: int, holdout: Holdout) -> np.ndarray:
        """What is known of `user` when `holdout` is predicted, oldest first: for test, validation too."""
        if holdout is Holdout.TEST and self.validation[user] != PADDING_ITEM:
            return np.append(self.train[user], self.validation[user])
        return self.train[user]

    def known(self, user: int, holdout: Holdout) -> np.ndarray:
        """The history of `user` and the item of `holdout`: what no negative may be when that item is predicted."""
        return np.append(self.history(user, holdout), self.target(holdout)[user])

    def full_history(self, user: int) -> np.ndarray:
        """Everything `user` has interacted with, oldest first: what serving starts from."""
        held_out = np.array([self.validation[user], self.test[user]])
        return np.concatenate([self.train[user], held_out[held_out != PADDING_ITEM]])

    def negative_sampler(self, trained_only: bool = False) -> NegativeSampler:
        """A sampler of training negatives: items outside a user's training sequence.

        Args:
            trained_only: draw only items that some user has in training.
        """
        drawable = self.catalogue.trained.copy() if trained_only else np.ones(len(self.catalogue) + 1, dtype=bool)
        drawable[PADDING_ITEM] = False
        return NegativeSampler(self.train, np.flatnonzero(drawable))

    @cached_property
    def occurring_items(self) -> np.ndarray:
        """(N+1,) bool: the items with any interaction, held out or not."""
        occurring = self.catalogue.interactions > 0
        occurring[self.validation] = True
        occurring[self.test] = True
        occurring[PADDING_ITEM] = False
        return occurring

    @cached_property
    def cold_items(self) -> np.ndarray:
        """(N+1,) bool: the bottom 35 % of the occurring items by training interactions (section 5.3.1).

        Equal counts are taken in catalogue order. Items without any training interaction are cold in any case.
        """
        cold = np.asarray(self.catalogue.interactions == 0)
        ranked = self._occurring_by_count()
        cold[ranked[: int(TAIL_SHARE * len(ranked))]] = True
        cold[PADDING_ITEM] = False
        return cold

    @cached_property
    def warm_items(self) -> np.ndarray:
        """(N+1,) bool: the top 35 % of the occurring items by training interactions (section 5.3.1)."""
        warm = np.zeros(len(self.catalogue) + 1, dtype=bool)
        ranked = self._occurring_by_count()
        warm[ranked[len(ranked) - int(TAIL_SHARE * len(ranked)) :]] = True
        return np.asarray(warm & self.catalogue.trained)

    @cached_property
    def cold_users(self) -> np.ndarray:
        """(U,) bool: users with exactly three interactions, one of them for training (section 5.3.2)."""
        evaluated = self.test != PADDING_ITEM
        lengths = np.array([len(items) for items in self.train])
        return np.asarray(evaluated & (lengths + 2 == COLD_USER_INTERACTIONS))

    def _occurring_by_count(self) -> np.ndarray:
        """Occurring item numbers, fewest training interactions first."""
        occurring = np.flatnonzero(self.occurring_items)
        return occurring[np.argsort(self.catalogue.interactions[occurring], kind="stable")]
