"""What an LLM is tuned on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.catalogue import Catalogue
from models.errors import DataError
from tests.tiny import tiny_split
from training.data.splits import SequenceSplit
from training.llm2rec.batches import Dealt
from training.tuning.positions import Positions, firsts

HISTORY = 3


@pytest.fixture
def split() -> SequenceSplit:
    return tiny_split()


def positions(split: SequenceSplit, negatives: int = 5, seed: int = 0) -> Positions:
    lengths = np.ones(len(split.catalogue.titles), dtype=np.int64)
    return Positions(split, lengths, HISTORY, negatives, seed)


def test_an_epoch_has_every_next_item_of_training_once(split: SequenceSplit) -> None:
    """And none of validation or test: the target follows its history in a training sequence."""
    found = positions(split)
    told = [found.take(batch) for batch in found.batches(0, 4)]
    pairs = [(*history, items[0]) for histories, table in told for history, items in zip(histories, table, strict=True)]
    wanted = [tuple(sequence[: end + 1]) for sequence in split.train for end in range(1, len(sequence))]
    assert sorted(pairs) == sorted(wanted)
    assert len(found) == len(wanted)


def test_a_repeat_is_no_target() -> None:
    """It could be told by standing in the list; the first item of a sequence has no list."""
    assert firsts(np.asarray([4, 7, 4, 9, 7, 9, 2])).tolist() == [1, 3, 6]
    assert firsts(np.asarray([4, 4])).tolist() == []


def test_negatives_are_wanted_by_others(split: SequenceSplit) -> None:
    """None is of the user's training sequence, none without training interactions, none comes twice."""
    found = positions(split)
    for batch in found.batches(0, 4):
        for history, (target, *negatives) in zip(*found.take(batch), strict=True):
            begun = [items for items in split.train if tuple(items[: len(history) + 1]) == (*history, target)]
            assert len(set(negatives)) == 5
            assert any(not set(negatives) & set(sequence) for sequence in begun)
            assert split.catalogue.trained[negatives].all()


def test_fewer_items_than_negatives_leave_padding(split: SequenceSplit) -> None:
    """A user of a small catalogue is held against what there is."""
    found = positions(split, negatives=100)
    for batch in found.batches(0, 4):
        for history, (target, *others) in zip(*found.take(batch), strict=True):
            begun = [items for items in split.train if tuple(items[: len(history) + 1]) == (*history, target)]
            trained = set(np.flatnonzero(split.catalogue.trained))
            assert any(set(others) - {0} == trained - set(items) for items in begun)
            assert others[-1] == 0


def test_an_item_of_the_same_title_is_no_negative(split: SequenceSplit) -> None:
    """Nothing could tell it from the target."""
    old = split.catalogue
    titles = [f"Title {number % 3}" for number in range(1, len(old.titles))]
    shared = Catalogue(old.item_ids[1:], titles, old.descriptions[1:], old.categories[1:], old.interactions[1:])
    found = positions(replace(split, catalogue=shared), negatives=12)
    for batch in found.batches(0, 4):
        for target, *others in found.take(batch)[1].tolist():
            assert {item % 3 for item in others if item} == {0, 1, 2} - {target % 3}


def test_epochs_differ_and_repeat(split: SequenceSplit) -> None:
    """An interrupted run meets the same batches and negatives again; another epoch or seed has others."""
    first, again, other = positions(split), positions(split), positions(split, seed=1)

    def told(found: Positions, epoch: int) -> list[list[int]]:
        return [found.take(batch)[1].tolist() for batch in found.batches(epoch, 4)]

    assert told(first, 1) == told(again, 1)
    assert told(first, 1) != told(first, 2)
    assert told(first, 1) != told(other, 1)


def test_two_processes_have_what_one_has(split: SequenceSplit) -> None:
    """Negatives are drawn for all of a batch, whoever computes which rows."""
    found = positions(split)
    (batch, *_) = found.batches(0, 4)
    whole = found.take(batch)[1]
    halves = [found.take(part)[1] for part in (Dealt(batch.rows, batch.seed, index, 2) for index in (0, 1))]
    assert whole[0::2].tolist() == halves[0].tolist()
    assert whole[1::2].tolist() == halves[1].tolist()


def test_nothing_to_learn_is_said(split: SequenceSplit) -> None:
    """Sequences of one item have no next one."""
    with pytest.raises(DataError, match="no next title"):
        positions(replace(split, train=[items[:1] for items in split.train]))
