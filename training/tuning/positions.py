"""What an LLM is tuned on: next items of training sequences, each with candidates.

Axes: B positions, C candidates of which the first is the target.
"""

from __future__ import annotations

import numpy as np

from models.catalogue import PADDING_ITEM
from models.errors import DataError
from training.data.negatives import NegativeSampler
from training.data.splits import SequenceSplit
from training.llm2rec.batches import Dealt, mixed_batches
from training.runs.loop import epoch_rng


class Positions:
    """All places of training sequences where an item stands that the user met for the first time.

    A repeat is no target, as validation has none: negatives never are of the sequence, so that it could be told by
    standing in the list.

    Args:
        split: the data; validation and test items are never looked at.
        lengths: (N+1,) tokens of titles, to batch by.
        history_items: of a list.
        negatives: for each, among items with training interactions that the user did not meet in training.
        seed: of batches and negatives.

    Raises:
        DataError: there is no such place.
    """

    def __init__(
        self, split: SequenceSplit, lengths: np.ndarray, history_items: int, negatives: int, seed: int
    ) -> None:
        self._train, self._negatives, self._seed = split.train, negatives, seed
        self._titles = np.unique(split.catalogue.titles, return_inverse=True)[1]
        places = [(user, int(end)) for user, items in enumerate(split.train) for end in firsts(items)]
        if not places:
            raise DataError("tune-llm: no training sequence has two items, so there is no next title to learn")
        self._places = np.asarray(places, dtype=np.int64)
        self._sampler = NegativeSampler(split.train, np.flatnonzero(split.catalogue.trained))
        shown = (split.train[user][max(0, end - history_items) : end] for user, end in places)
        self._lengths = np.asarray([int(lengths[items].sum()) for items in shown])

    def __len__(self) -> int:
        """How many."""
        return len(self._places)

    def batches(self, epoch: int, size: int) -> list[Dealt]:
        """Row numbers of an epoch's batches of so many positions; those of like length share one."""
        parts = mixed_batches(self._lengths, epoch_rng(self._seed, epoch), most_rows=size)
        return [Dealt(rows, (self._seed, epoch, number)) for number, rows in enumerate(parts)]

    def take(self, batch: Dealt) -> tuple[list[np.ndarray], np.ndarray]:
        """The histories of B rows and their (B, C) candidates, filled up with padding.

        An item with the target's very title is no negative: they cannot be told apart.
        """
        users, ends = self._places[batch.rows].T
        targets = np.asarray([self._train[user][end] for user, end in zip(users, ends, strict=True)])
        others = self._sampler.sample_distinct(users, self._negatives, np.random.default_rng(batch.seed))
        others[self._titles[others] == self._titles[targets][:, None]] = PADDING_ITEM
        histories = [self._train[user][:end] for user, end in zip(users[batch.mine], ends[batch.mine], strict=True)]
        return histories, np.column_stack([targets, others])[batch.mine]


def firsts(items: np.ndarray) -> np.ndarray:
    """(n,) the places of a sequence but the first where an item stands that did not stand before."""
    places = np.unique(items, return_index=True)[1]
    return np.sort(places[places > 0])
