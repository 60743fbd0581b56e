"""What a dataset can support, told before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from models.catalogue import PADDING_ITEM
from models.errors import DataError
from training.data.dataset import Dataset
from training.data.sequences import Sequences
from training.data.splits import MIN_EVALUATED, Holdout, SequenceSplit

MIN_ITEMS = 2
FEW_EVALUATED = 100
SHORT_TITLE = 2
DAYS_115, YEAR = 10_000_000, 31_536_000


def check_fitness(dataset: Dataset, split: SequenceSplit) -> list[str]:
    """What training and evaluation will have to do without; to be called before the first stage.

    Args:
        dataset: the data.
        split: the same data, split.

    Returns:
        warnings, each saying what is lacking, what follows, and what helps; a bundle can be made all the same.

    Raises:
        DataError: nothing can be trained: there is one item at most, or no sequence to learn from.
    """
    if len(split.catalogue) < MIN_ITEMS:
        raise DataError(
            f"dataset {dataset.info.name} has {len(split.catalogue)} item{'s' * (len(split.catalogue) != 1)}, and"
            " ranking needs at least 2: import more, or filter less"
        )
    trained = int(split.catalogue.trained.sum())
    if not any(len(items) > 1 and len(np.unique(items)) < trained for items in split.train):
        raise DataError(
            f"dataset {dataset.info.name} has nothing to learn from: nobody has two interactions to train on, beside"
            " the two that are held out of three or more, and an item left that others met; import more, or filter less"
        )
    return [*_of_users(split), *_of_candidates(split), *_of_texts(dataset), *_of_times(dataset)]


def evaluated_users(split: SequenceSplit) -> int:
    """How many users have items held out, and candidates to hold against them."""
    return int(np.count_nonzero(split.rankable(Holdout.TEST)))


def _kept_whole(split: SequenceSplit) -> int:
    """How many users have enough interactions to hold two out, and all of them in training."""
    nothing_held = (split.target(Holdout.VALIDATION) == PADDING_ITEM) & (split.target(Holdout.TEST) == PADDING_ITEM)
    return int(np.count_nonzero(nothing_held & (Sequences.of(split.train).lengths == MIN_EVALUATED)))


def _of_users(split: SequenceSplit) -> Iterator[str]:
    evaluated, short = evaluated_users(split), _kept_whole(split)
    if short:
        yield (
            f"{short:,} users have just {MIN_EVALUATED} interactions, and these are all for training, as too little"
            " else would be left to learn from: they are not evaluated"
        )
    if not (split.target(Holdout.TEST) != 0).any():
        lacking = f"more than {MIN_EVALUATED}" if short else MIN_EVALUATED
        yield (
            f"no user has {lacking} interactions, so nobody can be evaluated: there will be no figures, and"
            " settings that validation chooses stay at their defaults; more history a user helps"
        )
    elif evaluated < FEW_EVALUATED:
        yield f"{evaluated} users can be evaluated, so the figures' intervals will be wide"


def _of_candidates(split: SequenceSplit) -> Iterator[str]:
    held = split.target(Holdout.TEST) != 0
    without = int(np.count_nonzero(held & ~split.rankable(Holdout.TEST)))
    if without:
        yield f"{without} users have met every item, so there is nothing to rank for them: they are not evaluated"
    targets = np.concatenate([split.target(Holdout.TEST)[held], split.target(Holdout.VALIDATION)[held]])
    if len(targets) and not any(
        item in set(items.tolist()) for items, item in zip(split.train, split.target(Holdout.TEST), strict=True) if item
    ):
        yield "no held-out item was met before: the group of repeats is empty"


def _of_texts(dataset: Dataset) -> Iterator[str]:
    items = dataset.items
    distinct = items["title"].n_unique()
    if distinct == 1:
        yield "all items have the same title: text tells nothing apart, and explanations cannot name an item"
    elif distinct < len(items):
        yield f"{len(items) - distinct:,} titles stand for several items: in prompts these items look alike"
    if (items["title"] == items["item_id"]).all():
        yield "titles are ids: items have no text, so new items can be ranked by popularity only"
    elif (items["title"].str.len_chars() <= SHORT_TITLE).all():
        yield "no title is longer than 2 characters: text tells little"
    if (items["categories"].list.len() == 0).all():
        yield "no item has a category: genres cannot be explained"


def _of_times(dataset: Dataset) -> Iterator[str]:
    times = dataset.interactions["timestamp"]
    if times.n_unique() == 1 and len(times) > 1:
        yield "all interactions have the same time: histories are in the order of the source"
    late = int((times > datetime.now(UTC).timestamp()).sum())
    if late:
        yield f"{late:,} interactions lie in the future"
    latest = int(times.to_numpy().max())
    # Row numbers and other small counts are meant as they are.
    if DAYS_115 < latest < YEAR:
        yield "all times lie in 1970: they may be no seconds; say how they are written with --time-format"
