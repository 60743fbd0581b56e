"""Leave-last-out, cold and warm items and users, evaluation candidates, negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import DataError
from training.backbones.full_ranking import FullRanking
from training.data.dataset import ITEMS_SCHEMA, Dataset, DatasetInfo
from training.data.fitness import evaluated_users
from training.data.negatives import NegativeSampler
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import draw_candidates
from training.evaluation.held_out import HeldOut


def dataset_of(sequences: dict[str, Sequence[str]], item_ids: Sequence[str]) -> Dataset:
    """A dataset with `sequences` of item ids by user, oldest first."""
    interactions = pl.DataFrame(
        [
            {"user_id": user, "item_id": item, "timestamp": moment}
            for user, items in sequences.items()
            for moment, item in enumerate(items)
        ],
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64},
    )
    items = pl.DataFrame(
        {
            "item_id": item_ids,
            "title": [f"title {item}" for item in item_ids],
            "description": [""] * len(item_ids),
            "categories": [["c"]] * len(item_ids),
        },
        schema=dict(ITEMS_SCHEMA),
    )
    return Dataset(DatasetInfo(name="tiny", format="test"), interactions, items)


@pytest.fixture
def split() -> SequenceSplit:
    sequences = {"ann": ["a", "b", "c", "d"], "bob": ["b", "e", "a"], "cy": ["d", "a"], "di": ["f"]}
    return SequenceSplit.from_dataset(dataset_of(sequences, ["a", "b", "c", "d", "e", "f", "g"]))


def test_last_item_is_test_and_the_one_before_is_validation(split: SequenceSplit) -> None:
    """ann watched items 1 2 3 4, bob 2 5 1; cy and di have too few interactions to be evaluated."""
    assert split.user_ids == ["ann", "bob", "cy", "di"]
    assert [items.tolist() for items in split.train] == [[1, 2], [2], [4, 1], [6]]
    assert split.validation.tolist() == [3, 5, 0, 0]
    assert split.test.tolist() == [4, 1, 0, 0]


@pytest.mark.parametrize(("longer", "held"), [(0, False), (1, False), (3, True)])
def test_of_three_interactions_nothing_is_held_out_where_little_else_is_left(longer: int, held: bool) -> None:
    """20 users of three have two pairs each, a longer one three, of which one is left: none of 40, one of 43, three of
    49, which is a twentieth."""
    sequences = {f"u{user:02}": list("abc") for user in range(20)} | {
        f"v{user}": list("dcba") for user in range(longer)
    }
    split = SequenceSplit.from_dataset(dataset_of(sequences, list("abcd")))
    assert split.train[0].tolist() == ([1] if held else [1, 2, 3])
    assert (split.validation[0], split.test[0]) == ((2, 3) if held else (0, 0))
    assert [items.tolist() for items in split.train[20:]] == [[4, 3]] * longer
    assert split.test[20:].tolist() == [1] * longer


def test_history_for_test_includes_the_validation_item(split: SequenceSplit) -> None:
    assert split.history(0, Holdout.VALIDATION).tolist() == [1, 2]
    assert split.history(0, Holdout.TEST).tolist() == [1, 2, 3]
    assert split.history(2, Holdout.TEST).tolist() == [4, 1]
    assert split.full_history(0).tolist() == [1, 2, 3, 4]
    assert split.full_history(3).tolist() == [6]


def test_catalogue_counts_training_interactions_only(split: SequenceSplit) -> None:
    """a: ann, cy; b: ann, bob; d: cy (ann's is held out); f: di; c and e are only held out, g never occurs."""
    assert split.catalogue.interactions[1:].tolist() == [2, 2, 0, 1, 0, 1, 0]


def test_cold_and_warm_are_the_tails_of_the_occurring_items(split: SequenceSplit) -> None:
    """Of six occurring items floor(0.35 * 6) = 2 are cold (c, e) and 2 warm (a, b); g never occurs: cold."""
    assert np.flatnonzero(split.cold_items).tolist() == [3, 5, 7]
    assert np.flatnonzero(split.warm_items).tolist() == [1, 2]


def test_items_without_training_interactions_are_cold_beyond_the_tail() -> None:
    """Four of five occurring items are held out only: all are cold though 35 % would be one."""
    sequences = {"u": ["a", "b", "c"], "v": ["a", "d", "e"], "w": ["a", "a"]}
    split = SequenceSplit.from_dataset(dataset_of(sequences, list("abcde")))
    assert np.flatnonzero(split.cold_items).tolist() == [2, 3, 4, 5]
    assert np.flatnonzero(split.warm_items).tolist() == [1]


def test_candidates_are_the_target_and_distinct_items_the_user_never_met() -> None:
    item_ids = [f"i{number}" for number in range(60)]
    rng = np.random.default_rng(5)
    sequences = {f"u{user}": rng.permutation(item_ids)[: rng.integers(3, 30)].tolist() for user in range(50)}
    split = SequenceSplit.from_dataset(dataset_of(sequences, item_ids))
    candidates = draw_candidates(split, Holdout.VALIDATION, seed=3)
    assert candidates.items.shape == (50, 20)
    assert candidates.mask.all()
    for user, row in zip(candidates.users, candidates.items.tolist(), strict=True):
        assert row[0] == split.validation[user]
        assert len(set(row)) == 20
        assert not set(row[1:]) & set(split.history(user, Holdout.VALIDATION).tolist())


def test_a_test_item_may_be_a_negative_of_validation(split: SequenceSplit) -> None:
    """Of seven items ann has met 1 2 and looks for 3: her test item 4 is among the four that are left, or the
    validation would know what comes after it. On test, all that came before is met."""
    on_validation, on_test = (draw_candidates(split, holdout).items[0].tolist() for holdout in Holdout)
    assert on_validation[0] == 3
    assert sorted(on_validation[1:5]) == [4, 5, 6, 7]
    assert on_test[0] == 4
    assert sorted(on_test[1:4]) == [5, 6, 7]


def test_candidates_follow_the_seed() -> None:
    big = SequenceSplit.from_dataset(
        dataset_of({f"u{user}": ["i1", "i2", "i3", "i4"] for user in range(9)}, [f"i{n}" for n in range(400)])
    )
    assert np.array_equal(draw_candidates(big, Holdout.TEST, 1).items, draw_candidates(big, Holdout.TEST, 1).items)
    assert not np.array_equal(draw_candidates(big, Holdout.TEST, 1).items, draw_candidates(big, Holdout.TEST, 2).items)


def test_a_tiny_catalogue_gives_fewer_candidates(split: SequenceSplit) -> None:
    """Of seven items ann has met four and bob three: three and four negatives are left, then padding."""
    candidates = draw_candidates(split, Holdout.TEST)
    assert candidates.users.tolist() == [0, 1]
    assert sorted(candidates.items[0, 1:4].tolist()) == [5, 6, 7]
    assert sorted(candidates.items[1, 1:5].tolist()) == [3, 4, 6, 7]
    assert candidates.mask.sum(axis=1).tolist() == [4, 5]


def test_who_met_every_item_has_no_candidates() -> None:
    """u met all four of them, so on test any ranker would be right; before d was met there was d to hold against c.

    v met one twice, and d is left; w met all four before the last.
    """
    sequences = {"u": list("abcd"), "v": list("abca"), "w": list("abcda"), "x": list("ab")}
    split = SequenceSplit.from_dataset(dataset_of(sequences, list("abcd")))
    on_validation, on_test = (draw_candidates(split, holdout) for holdout in Holdout)
    assert on_validation.users.tolist() == [0, 1]
    assert on_validation.items[:, :2].tolist() == [[3, 4], [3, 4]]
    assert on_test.users.tolist() == [1]
    assert on_test.items[0, :3].tolist() == [1, 4, 0]
    assert [FullRanking.of(split, holdout).users.tolist() for holdout in Holdout] == [[0, 1], [1]]
    assert len(HeldOut.of(split, Holdout.TEST)) == evaluated_users(split) == 1


def test_negatives_are_uniform_over_the_free_items() -> None:
    """Items 2, 4, 5 are free for the user; each is expected in a third of 30,000 draws."""
    sampler = NegativeSampler([np.array([1, 3])], np.arange(1, 6))
    drawn = sampler.sample(np.zeros(300, dtype=np.int64), 100, np.random.default_rng(0))
    counts = np.bincount(drawn.ravel(), minlength=6)
    assert counts[[0, 1, 3]].tolist() == [0, 0, 0]
    assert np.abs(counts[[2, 4, 5]] / 30_000 - 1 / 3).max() < 0.015


def test_a_user_of_the_whole_catalogue_gets_padding() -> None:
    sampler = NegativeSampler([np.array([1, 2]), np.array([1])], np.array([1, 2]))
    rng = np.random.default_rng(0)
    assert sampler.sample(np.array([0, 1]), 3, rng).tolist() == [[0, 0, 0], [2, 2, 2]]
    assert sampler.sample_distinct(np.array([0, 1]), 3, rng).tolist() == [[0, 0, 0], [2, 0, 0]]


def test_trained_only_negatives_leave_unseen_items_out(split: SequenceSplit) -> None:
    drawn = split.negative_sampler(trained_only=True).sample(np.zeros(50, dtype=np.int64), 20, np.random.default_rng(1))
    assert set(drawn.ravel().tolist()) == {4, 6}


@settings(max_examples=60, deadline=None)
@given(
    interacted=st.lists(st.lists(st.integers(1, 30), max_size=30, unique=True), min_size=1, max_size=6),
    count=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_distinct_negatives_are_as_many_as_there_can_be(interacted: list[list[int]], count: int, seed: int) -> None:
    """Each row holds min(count, free) distinct free items and padding for the rest."""
    sampler = NegativeSampler([np.array(items, dtype=np.int64) for items in interacted], np.arange(1, 31))
    users = np.arange(len(interacted))
    for user, row in enumerate(sampler.sample_distinct(users, count, np.random.default_rng(seed)).tolist()):
        free = set(range(1, 31)) - set(interacted[user])
        drawn = [item for item in row if item]
        assert len(set(drawn)) == len(drawn) == min(count, len(free))
        assert set(drawn) <= free


DAY = 86_400
START = 1_500_000_000


def dated(times: dict[str, list[int]]) -> Dataset:
    """Users who met items a, b, c, ... on these days."""
    dataset = dataset_of({user: "abcdefgh"[: len(days)] for user, days in times.items()}, list("abcdefgh"))
    days = [day for user in times for day in times[user]]
    return replace(dataset, interactions=dataset.interactions.with_columns(timestamp=pl.Series(days) * DAY + START))


class TestByTime:
    def test_what_came_after_is_not_learned(self) -> None:
        """Of twelve interactions the last four are on day 9 or later, the boundary. ann's first after it is d, bob's c;
        cy has nothing after, di too little before, and ed came after."""
        times = {"ann": [0, 1, 2, 9, 10], "bob": [3, 4, 9], "cy": [5, 6], "di": [7], "ed": [11]}
        split = SequenceSplit.by_time(dated(times), test_share=0.3)
        assert split.user_ids == ["ann", "bob", "cy", "di"]
        assert [items.tolist() for items in split.train] == [[1, 2], [1], [1, 2], [1]]
        assert split.validation.tolist() == [3, 2, 0, 0]
        assert split.test.tolist() == [4, 3, 0, 0]
        assert split.history(0, Holdout.TEST).tolist() == [1, 2, 3]
        assert split.catalogue.interactions[1:6].tolist() == [4, 2, 0, 0, 0]

    def test_users_of_before_alone_validate(self) -> None:
        """Three interactions before the boundary are enough to hold the last out, whoever comes after."""
        times = {"ann": [0, 1, 2, 3, 4, 5], "bob": [6, 7, 9]}
        split = SequenceSplit.by_time(dated(times), test_share=0.1)
        assert split.validation.tolist() == [6, 2]
        assert split.test.tolist() == [0, 3]

    def test_rows_are_no_dates(self) -> None:
        with pytest.raises(DataError, match="no dates"):
            SequenceSplit.by_time(dataset_of({"ann": ["a", "b", "c"]}, list("abc")))

    def test_times_are_those_of_what_is_learned(self) -> None:
        """By a moment, by last items, by both with everything, and with the latest held back; none without dates."""
        data = dated({"ann": [0, 1, 2, 9, 10], "bob": [3, 4, 9], "cy": [5, 6]})
        by_time, by_user = SequenceSplit.by_time(data, test_share=0.3), SequenceSplit.from_dataset(data)
        splits = [by_time, by_time.whole(), by_user, by_user.whole(), by_user.holding_back(0.5)]
        days = [((split.training_times - START) // DAY).tolist() for split in splits]
        assert days[:2] == [[0, 1, 3, 5, 6], [0, 1, 2, 9, 3, 4, 9, 5, 6]]
        assert days[2:4] == [[0, 1, 2, 3, 5, 6], [0, 1, 2, 9, 10, 3, 4, 9, 5, 6]]
        lengths = [len(items) for items in splits[4].train]
        assert days[4] == [*[0, 1, 2][: lengths[0]], 3, *[5, 6][: lengths[2]]]
        assert SequenceSplit.from_dataset(dataset_of({"ann": ["a", "b"]}, ["a", "b"])).training_times is None

    def test_somebody_has_to_be_tested(self) -> None:
        with pytest.raises(DataError, match="cannot be split by time"):
            SequenceSplit.by_time(dated({"ann": [0, 1], "bob": [2, 3]}), test_share=0.5)


def test_a_dataset_without_interactions_is_refused() -> None:
    with pytest.raises(DataError, match="no interactions"):
        SequenceSplit.from_dataset(dataset_of({}, ["a"]))


def test_an_interaction_with_an_unlisted_item_is_refused() -> None:
    with pytest.raises(DataError, match="'z'"):
        SequenceSplit.from_dataset(dataset_of({"u": ["a", "z"]}, ["a"]))


def test_holding_back_takes_the_latest_of_every_sequence() -> None:
    """Of ten items three, of one none; counts follow, nobody is evaluated, and users and items stay."""
    sequences = {"ann": [*list("abcdefghij"), "y", "z"], "bob": ["j"], "cy": ["h", "i"]}
    split = SequenceSplit.from_dataset(dataset_of(sequences, list("abcdefghijyz")))
    fitted = split.holding_back(0.3)
    assert fitted.train[0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert fitted.train[1].tolist() == [10]
    assert fitted.catalogue.interactions.tolist() == np.bincount(np.concatenate(fitted.train), minlength=13).tolist()
    assert not any(fitted.target(holdout).any() for holdout in Holdout)
    assert fitted.user_ids == split.user_ids


def test_holding_back_rounds_at_random() -> None:
    """A tenth of five items is one item of half of the users; the seed says of whom."""
    sequences = {f"u{number}": ["a", "b", "c", "d", "e", "f", "g"] for number in range(400)}
    split = SequenceSplit.from_dataset(dataset_of(sequences, list("abcdefg")))
    lengths = [np.asarray([len(items) for items in split.holding_back(0.1, seed).train]) for seed in (0, 0, 1)]
    assert set(lengths[0].tolist()) == {4, 5}
    assert (lengths[0] == 4).mean() == pytest.approx(0.5, abs=0.08)
    assert np.array_equal(lengths[0], lengths[1])
    assert not np.array_equal(lengths[0], lengths[2])
