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
from training.data.sequences import Sequences

MIN_EVALUATED = 3
LEARNED_SHARE = 0.05
"""Of all pairs of an item and the next one, at least so many are to be left in training: where nearly all users have
three interactions, the few others would have to teach all. A judgement; where all have five, as in the papers' data
sets, half are left."""
TAIL_SHARE = 0.35
TEST_SHARE = 0.1
EARLIEST_DATE = 100_000_000
"""Seconds; smaller times, before 1973, count rows or steps."""


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
            theirs here; so have those with just three, where too little would be left to learn from.
        validation: (U,) the last but one item, padding for these users.
        test: (U,) the last item, padding for these users.
        times: U arrays of seconds, of `full_history` and, where less is learned from, of what came after; None where
            the data has no dates.
    """

    user_ids: Sequence[str]
    catalogue: Catalogue
    train: Sequence[np.ndarray]
    validation: np.ndarray
    test: np.ndarray
    times: Sequences | None = None

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> SequenceSplit:
        """Split `dataset`.

        Raises:
            DataError: it has no interactions, or one of an item that is not among its items.
        """
        whole, moments, user_ids = _sequences(dataset)
        train, held_out = _leave_two_out(whole)
        times = Sequences(moments, whole.lengths) if _are_dates(moments) else None
        return cls(user_ids, _catalogue(dataset, train), train, held_out[:, 0], held_out[:, 1], times)

    @classmethod
    def by_time(cls, dataset: Dataset, test_share: float = TEST_SHARE) -> SequenceSplit:
        """Split `dataset` at one moment for all: nothing is learned from what came after a test item.

        A user's first item after the moment is for test, the last before it for validation, the others before it for
        training. What else came after is dropped, and with it who came after; items that did so stay, unseen.

        Args:
            dataset: the data.
            test_share: of the interactions, at most so many come after the moment.

        Raises:
            DataError: as `from_dataset`; or the times are no dates, or leave nobody to test.
        """
        whole, moments, user_ids = _sequences(dataset)
        if not _are_dates(moments):
            raise DataError(f"dataset {dataset.info.name} has no dates: it cannot be split by time")
        boundary = np.sort(moments)[int((1 - test_share) * len(moments))]
        train, held_out, users = _split_at(whole, moments < boundary)
        times = Sequences.of(Sequences(moments, whole.lengths)[user] for user in users)
        if not held_out[:, 1].any():
            raise DataError(
                f"dataset {dataset.info.name} cannot be split by time: nobody has two interactions before"
                f" and one after {boundary} s"
            )
        kept = [user_ids[user] for user in users]
        return cls(kept, _catalogue(dataset, train), train, held_out[:, 0], held_out[:, 1], times)

    def whole(self) -> SequenceSplit:
        """The same with nothing held out: everything is for training."""
        return self._trained_on(Sequences.of(self.full_history(user) for user in range(len(self))))

    def holding_back(self, share: float, seed: int = 0) -> SequenceSplit:
        """The same without the latest part of every training sequence, and with nobody to evaluate.

        Args:
            share: of every sequence; what is no whole number of items is rounded at random. One item is always left.
            seed: of the rounding.
        """
        train = Sequences.of(self.train)
        rounding = np.random.default_rng(seed).random(len(train))
        left = train.lengths - np.floor(share * train.lengths + rounding).astype(np.int64)
        lengths = np.maximum(left, np.minimum(train.lengths, 1))
        places = np.arange(len(train.items)) - np.repeat(train.offsets[:-1], train.lengths)
        return self._trained_on(Sequences(train.items[places < np.repeat(lengths, train.lengths)], lengths))

    def _trained_on(self, sequences: Sequences) -> SequenceSplit:
        """The same users and items with other training sequences, and nothing held out."""
        counts = np.bincount(sequences.items, minlength=len(self.catalogue) + 1)
        nobody = np.full(len(self), PADDING_ITEM, dtype=np.int64)
        catalogue = self.catalogue.with_interactions(counts[1:])
        return SequenceSplit(self.user_ids, catalogue, sequences, nobody, nobody, self.times)

    def __len__(self) -> int:
        """The number of users U."""
        return len(self.user_ids)

    def numbers_of(self, user_ids: Sequence[str]) -> np.ndarray:
        """(n,) each user's number, 1..U, as backbones that read users have it; 0 for somebody else."""
        return np.asarray([self._numbers.get(user_id, 0) for user_id in user_ids], dtype=np.int64)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {user_id: 1 + row for row, user_id in enumerate(self.user_ids)}

    @property
    def training_times(self) -> np.ndarray | None:
        """(n,) seconds of all training items, user by user; None where the data has no dates."""
        if self.times is None:
            return None
        places = np.arange(len(self.times.items)) - np.repeat(self.times.offsets[:-1], self.times.lengths)
        return self.times.items[places < np.repeat(Sequences.of(self.train).lengths, self.times.lengths)]

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

    def rankable(self, holdout: Holdout) -> np.ndarray:
        """(U,) bool: users with an item of `holdout` and at least one other that they had not met by then.

        Nobody else can be evaluated: where nothing is left to hold against the item, every ranker has it first.
        """
        flat, rows, stride = Sequences.of(self.train), np.arange(len(self)), len(self.catalogue) + 1
        later = [self.target(holdout), *([self.validation] if holdout is Holdout.TEST else [])]
        owners, items = np.concatenate([flat.owners, *(rows for _ in later)]), np.concatenate([flat.items, *later])
        met = np.unique((owners * stride + items)[items != PADDING_ITEM])
        counts = np.bincount(met // stride, minlength=len(self))
        return np.asarray((later[0] != PADDING_ITEM) & (counts < len(self.catalogue)))

    def full_history(self, user: int) -> np.ndarray:
        """Everything `user` has interacted with, oldest first: what serving starts from."""
        held_out = np.array([self.validation[user], self.test[user]])
        return np.concatenate([self.train[user], held_out[held_out != PADDING_ITEM]])

    def training_frame(self) -> pl.DataFrame:
        """What is learned from, one row an interaction: `user_id`, `item_id`, and `position` from 0, oldest first."""
        flat = Sequences.of(self.train)
        positions = np.arange(len(flat.items)) - np.repeat(flat.offsets[:-1], flat.lengths)
        user_ids, item_ids = (np.asarray(ids, dtype=object) for ids in (self.user_ids, self.catalogue.item_ids))
        columns = {"user_id": user_ids[flat.owners], "item_id": item_ids[flat.items], "position": positions}
        return pl.DataFrame(columns, schema={"user_id": pl.String, "item_id": pl.String, "position": pl.Int64})

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

    def _occurring_by_count(self) -> np.ndarray:
        """Occurring item numbers, fewest training interactions first."""
        occurring = np.flatnonzero(self.occurring_items)
        return occurring[np.argsort(self.catalogue.interactions[occurring], kind="stable")]


def _sequences(dataset: Dataset) -> tuple[Sequences, np.ndarray, list[str]]:
    """Of every user the item numbers, oldest first, all of their times (n,) in seconds, and the users' ids."""
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
    by_user = joined.group_by("user_id", maintain_order=True).agg("number", "timestamp")
    items, times = (by_user[name].explode().to_numpy() for name in ("number", "timestamp"))
    whole = Sequences(items, by_user["number"].list.len().to_numpy())
    return whole, times, by_user["user_id"].to_list()


def _are_dates(moments: np.ndarray) -> bool:
    return bool(moments.max() >= EARLIEST_DATE)


def _catalogue(dataset: Dataset, train: Sequences) -> Catalogue:
    """All items, with the interactions of the training sequences."""
    counts = np.bincount(train.items, minlength=len(dataset.items) + 1)
    return Catalogue(
        item_ids=dataset.items["item_id"].to_list(),
        titles=dataset.items["title"].to_list(),
        descriptions=dataset.items["description"].to_list(),
        categories=dataset.items["categories"].to_list(),
        interactions=counts[1:],
    )


def _leave_two_out(whole: Sequences) -> tuple[Sequences, np.ndarray]:
    """The sequences without their last two items, and these (U, 2); short sequences stay whole, with padding there.

    What three interactions leave of two held out teaches nothing of what comes next. Where little else would, they are
    short too.
    """
    evaluated = whole.lengths >= MIN_EVALUATED
    pairs = whole.lengths - 1
    if (pairs - 2 * evaluated).sum() < LEARNED_SHARE * pairs.sum():
        evaluated = whole.lengths > MIN_EVALUATED
    stops = whole.offsets[1:][evaluated]
    places = np.column_stack([stops - 2, stops - 1])
    held_out = np.full((len(whole), 2), PADDING_ITEM, dtype=np.int64)
    held_out[evaluated] = whole.items[places]
    kept = np.ones(len(whole.items), dtype=bool)
    kept[places.ravel()] = False
    return Sequences(whole.items[kept], whole.lengths - 2 * evaluated), held_out


def _split_at(whole: Sequences, before: np.ndarray) -> tuple[Sequences, np.ndarray, np.ndarray]:
    """What is before a moment, the held-out items (U', 2), and the rows (U',) of the users who have anything before it.

    Args:
        whole: all sequences, oldest first.
        before: (n,) bool: which of their items are before the moment.
    """
    counts = np.add.reduceat(before, whole.offsets[:-1], dtype=np.int64)
    users = np.flatnonzero(counts)
    counts, lengths, starts = counts[users], whole.lengths[users], whole.offsets[:-1][users]
    tested = (counts >= MIN_EVALUATED - 1) & (counts < lengths)
    validated = tested | (counts >= MIN_EVALUATED)
    held_out = np.full((len(users), 2), PADDING_ITEM, dtype=np.int64)
    held_out[validated, 0] = whole.items[(starts + counts - 1)[validated]]
    held_out[tested, 1] = whole.items[(starts + counts)[tested]]
    kept = before.copy()
    kept[(starts + counts - 1)[validated]] = False
    return Sequences(whole.items[kept], counts - validated), held_out, users
