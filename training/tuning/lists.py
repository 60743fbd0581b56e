"""What an LLM is tuned on: lists of the titles of a history, and those that may follow.

Axes: B lists, C candidates of which the first is the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.catalogue import PADDING_ITEM
from models.domain import Domain
from models.errors import DataError
from models.prompts.title_list import TitleList, TitleListConfig
from models.prompts.titles import TitleTokens
from models.scoring.likelihood import ContinuationTree
from training.data.splits import SequenceSplit
from training.llm2rec.batches import Dealt, mixed_batches
from training.runs.loop import epoch_rng


class Lists:
    """Titles of a catalogue in lists, as `PromptComposer` builds them.

    Args:
        titles: of all items, row 0 the padding item's.
        tokenizer: of the LLM.
        config: what a list shows.
        domain: its wording.
        context_length: of the LLM, in tokens.
    """

    def __init__(
        self, titles: Sequence[str], tokenizer: Any, config: TitleListConfig, domain: Domain, context_length: int
    ) -> None:
        self._list = TitleList(tokenizer, config, domain, context_length)
        self._titles = TitleTokens(tokenizer, titles, config.tokens_needed)
        self.alone = self._list.alone
        self._vocabulary = self._all_tokens() if config.vocabulary == "catalogue" else None

    @property
    def lengths(self) -> np.ndarray:
        """(N+1,) tokens of every title."""
        return self._titles.lengths

    def after(self, history: np.ndarray) -> np.ndarray:
        """(L,) the list of a history's titles, oldest first."""
        return self._list.after(self._titles.of(history.tolist()))

    def tree(self, items: np.ndarray) -> ContinuationTree:
        """The titles of items, as they follow in a list; padding is left out."""
        titles = self._titles.of(items[items != PADDING_ITEM].tolist())
        return ContinuationTree([self._list.continuation(title) for title in titles], self._vocabulary)

    def _all_tokens(self) -> np.ndarray:
        followers = (self._list.continuation(self._titles[item]) for item in range(1, len(self._titles)))
        return np.asarray(sorted(set().union(*followers)), dtype=np.int64)


class Positions:
    """All places of training sequences that something stands before, with candidates for each.

    Args:
        split: the data; validation and test items are never looked at.
        lengths: (N+1,) tokens of titles, to batch by.
        history_items: of a list.
        negatives: for each.
        seed: of batches and negatives.

    Raises:
        DataError: there is no such place.
    """

    def __init__(
        self, split: SequenceSplit, lengths: np.ndarray, history_items: int, negatives: int, seed: int
    ) -> None:
        self._split, self._negatives, self._seed = split, negatives, seed
        self._trained = np.flatnonzero(split.catalogue.trained)
        places = [(user, end) for user, items in enumerate(split.train) for end in range(1, len(items))]
        if not places:
            raise DataError("tune-llm: no training sequence has two items, so there is no next title to learn")
        self._places = np.asarray(places, dtype=np.int64)
        shown = (split.train[user][max(0, end - history_items) : end] for user, end in places)
        self._lengths = np.asarray([int(lengths[items].sum()) for items in shown])

    def __len__(self) -> int:
        """How many."""
        return len(self._places)

    def batches(self, epoch: int, lists: int) -> list[Dealt]:
        """Row numbers of an epoch's batches of so many lists; those of like length share one."""
        parts = mixed_batches(self._lengths, epoch_rng(self._seed, epoch), most_rows=lists)
        return [Dealt(rows, (self._seed, epoch, number)) for number, rows in enumerate(parts)]

    def take(self, batch: Dealt) -> tuple[list[np.ndarray], np.ndarray]:
        """The histories of B rows and their (B, C) candidates: the target, and negatives that its user never met."""
        rows = batch.rows[batch.mine]
        histories, items = [], np.full((len(rows), 1 + self._negatives), PADDING_ITEM, dtype=np.int64)
        for place, (user, end) in enumerate(self._places[rows].tolist()):
            sequence = self._split.train[user]
            histories.append(sequence[:end])
            rng = np.random.default_rng([*batch.seed, int(rows[place])])
            others = np.setdiff1d(self._trained, sequence)
            drawn = rng.choice(others, min(self._negatives, len(others)), replace=False)
            items[place, : 1 + len(drawn)] = [sequence[end], *drawn]
        return histories, items
