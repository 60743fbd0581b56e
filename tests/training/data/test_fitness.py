"""What a dataset can support is told before training: a warning, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from models.errors import DataError
from training.data.dataset import ITEMS_SCHEMA, Dataset, DatasetInfo
from training.data.fitness import check_fitness, evaluated_users
from training.data.splits import SequenceSplit


def dataset_of(sequences: dict[str, str], titles: dict[str, str], categories: Sequence[str] = ("Kind",)) -> Dataset:
    """A dataset of users who met the items that the letters name, in order."""
    rows = [(user, item, moment) for user, items in sequences.items() for moment, item in enumerate(items)]
    interactions = pl.DataFrame(
        rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}, orient="row"
    )
    items = pl.DataFrame(
        {
            "item_id": list(titles),
            "title": list(titles.values()),
            "description": [""] * len(titles),
            "categories": [list(categories)] * len(titles),
        },
        schema=dict(ITEMS_SCHEMA),
    )
    return Dataset(DatasetInfo(name="small", format="test"), interactions, items)


def checked(dataset: Dataset) -> str:
    return " / ".join(check_fitness(dataset, SequenceSplit.from_dataset(dataset)))


TITLES = {letter: f"Title {letter}" for letter in "abcdefgh"}


def test_one_item_is_refused() -> None:
    with pytest.raises(DataError, match="has 1 item, and ranking needs at least 2"):
        checked(dataset_of({"u": "aaaa"}, {"a": "A"}))


@pytest.mark.parametrize("sequences", [{"u": "abc"}, {"u": "a", "v": "b"}, {"u": "ab", "v": "ab"}])
def test_nothing_to_learn_from_is_refused(sequences: dict[str, str]) -> None:
    """One training item, single items, and two users who met the same two items."""
    with pytest.raises(DataError, match="has nothing to learn from"):
        checked(dataset_of(sequences, TITLES))


def test_nobody_to_evaluate_is_said() -> None:
    dataset = dataset_of({"u": "ab", "v": "c"}, TITLES)
    assert "no user has 3 interactions, so nobody can be evaluated" in checked(dataset)
    assert evaluated_users(SequenceSplit.from_dataset(dataset)) == 0


def test_three_interactions_each_are_learned_from() -> None:
    """As two each are. Nobody is evaluated, and it says why."""
    dataset = dataset_of({"u": "abc", "v": "bcd", "w": "cde"}, TITLES)
    told = checked(dataset)
    assert "3 users have just 3 interactions, and these are all for training" in told
    assert "no user has more than 3 interactions, so nobody can be evaluated" in told
    assert evaluated_users(SequenceSplit.from_dataset(dataset)) == 0


def test_users_who_met_everything_have_no_candidates() -> None:
    """u met all four items; v met three, so one is left to hold against the target."""
    dataset = dataset_of({"u": "abcd", "v": "abca", "w": "cd"}, {letter: TITLES[letter] for letter in "abcd"})
    assert "1 users have met every item" in checked(dataset)
    assert evaluated_users(SequenceSplit.from_dataset(dataset)) == 1


def test_few_users_make_wide_intervals() -> None:
    assert "2 users can be evaluated, so the figures' intervals will be wide" in checked(
        dataset_of({"u": "abcd", "v": "bcde"}, TITLES)
    )


def test_one_user_is_refused() -> None:
    split = SequenceSplit.from_dataset(dataset_of({"u": "abcab"}, TITLES))
    assert len(split) == 1
    with pytest.raises(DataError, match="has nothing to learn from"):
        checked(dataset_of({"u": "abcab"}, TITLES))


def test_identical_titles_are_said() -> None:
    sequences = {"u": "abcd", "v": "ef"}
    assert "all items have the same title" in checked(dataset_of(sequences, dict.fromkeys("abcdef", "Same")))
    assert "1 titles stand for several items" in checked(dataset_of(sequences, {**TITLES, "b": "Title a"}))


def test_no_text_is_said() -> None:
    told = checked(dataset_of({"u": "abcd", "v": "ef"}, {letter: letter for letter in "abcdef"}, categories=()))
    assert "titles are ids" in told
    assert "no item has a category" in told


def test_no_repeats_are_said() -> None:
    assert "the group of repeats is empty" in checked(dataset_of({"u": "abcd", "v": "ef"}, TITLES))
    assert "the group of repeats is empty" not in checked(dataset_of({"u": "abca", "v": "ef"}, TITLES))


def test_times_that_cannot_be_meant_are_said() -> None:
    dataset = dataset_of({"u": "abcd", "v": "ef"}, TITLES)
    late = Dataset(dataset.info, dataset.interactions.with_columns(timestamp=pl.lit(32503680000)), dataset.items)
    assert "6 interactions lie in the future" in checked(late)
    dates = Dataset(dataset.info, dataset.interactions.with_columns(timestamp=pl.lit(20190131)), dataset.items)
    assert "all times lie in 1970" in checked(dates)


def test_a_sound_dataset_has_no_warnings() -> None:
    """150 users with five interactions each among 30 items, the last met before."""
    letters = [chr(0x61 + n) for n in range(26)]
    sequences = {f"u{n}": "".join(letters[(n + step * 3) % 26] for step in (0, 1, 2, 3, 0)) for n in range(150)}
    assert checked(dataset_of(sequences, {letter: f"Title {letter}" for letter in letters})) == ""
