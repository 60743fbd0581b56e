"""Scenarios: what is learned from, whom rankers are asked about, and what too little data is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.errors import DataError
from tests.training.ground import write_shop
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit
from training.experiments.scenarios import OVERALL, cold_users, few_shot


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(write_shop(tmp_path_factory.mktemp("scenarios")))


def test_cold_users_are_known_by_their_latest_items(dataset: Dataset) -> None:
    """The same users and candidates; of each history the end is left, and of names nothing."""
    whole, cut = (scenario.asked(dataset, 0, 100) for scenario in (OVERALL, cold_users(2)))
    assert np.array_equal(whole.candidates.items, cut.candidates.items)
    for history, latest in zip(whole.users.histories, cut.users.histories, strict=True):
        assert latest.tolist() == history.tolist()[-2:]
    assert set(cut.users.user_ids) == {""}


def test_few_users_are_learned_from_and_nobody_else(dataset: Dataset) -> None:
    """Their sequences as they are, items counted among them alone, numbered as before; another seed takes others."""
    whole = SequenceSplit.from_dataset(dataset)
    name, teach = few_shot(7).teach(seed=0)
    few = teach(dataset)
    assert "7 users" in name
    assert len(few) == 7
    for row, user_id in enumerate(few.user_ids):
        user = list(whole.user_ids).index(user_id)
        assert few.train[row].tolist() == whole.train[user].tolist()
        assert few.target(Holdout.TEST)[row] == whole.target(Holdout.TEST)[user]
    met = [item for items in few.train for item in items]
    counted = few.catalogue.interactions
    assert [int(counted[item]) for item in range(1, 31)] == [met.count(item) for item in range(1, 31)]
    assert few.catalogue.item_ids == whole.catalogue.item_ids
    assert set(few_shot(7).teach(seed=1)[1](dataset).user_ids) != set(few.user_ids)


def test_too_few_users_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    """In a line that says how many there are."""
    with pytest.raises(DataError, match="'30 users': shop has 30 users with held-out items"):
        few_shot(30).teach(seed=0)[1](dataset)
    small = Dataset.load(write_shop(tmp_path, "small", users=3))
    with pytest.raises(DataError, match="'all users': 3 users of small can be asked about"):
        OVERALL.asked(small, 0, 100)
