"""What another library gets and gives when backbones are compared with its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.elsewhere import KNOWN, score, train_ours, write_split
from models.catalogue import PADDING_ITEM
from tests.training.ground import write_shop
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit
from training.runs.loop import LoopConfig


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("elsewhere"))


def rows(path: Path) -> list[tuple[int, list[int], int]]:
    """Of an atomic file: user, items before, item."""
    _, *lines = path.read_text().splitlines()
    return [(int(u), [int(item) for item in items.split()], int(at)) for u, items, at in (x.split("\t") for x in lines)]


def test_the_other_library_learns_from_the_same_split(dataset: Path, tmp_path: Path) -> None:
    """Every training item but the first after those before it; held-out items after all that is known of a user."""
    split = SequenceSplit.from_dataset(Dataset.load(dataset))
    write_split(dataset, tmp_path / "shop")
    train, validation, test = (rows(tmp_path / f"shop/shop.{x}.inter") for x in ("train", "validation", "test"))
    expected = [
        (user, items[:at].tolist(), items[at]) for user, items in enumerate(split.train) for at in range(1, len(items))
    ]
    assert train == expected
    users = [user for user in range(len(split)) if split.test[user] != PADDING_ITEM]
    assert validation == [(user, split.train[user].tolist(), split.validation[user]) for user in users]
    assert test == [(user, [*split.train[user], split.validation[user]], split.test[user]) for user in users]
    known = [line.split() for line in (tmp_path / "shop" / KNOWN).read_text().splitlines()]
    assert [[int(item) for item in items] for items in known] == [items for _, items, _ in validation]


def test_vectors_are_scored_by_what_their_users_did_not_meet(dataset: Path, tmp_path: Path) -> None:
    """One seed finds everything at once, another has each user's history and nine others ahead of it."""
    split = SequenceSplit.from_dataset(Dataset.load(dataset))
    size = len(split.catalogue) + 1
    best, tenth = ({"items": np.eye(size, dtype=np.float32)} for _ in range(2))
    for holdout in Holdout:
        target = split.target(holdout)
        best[holdout.value] = np.eye(size, dtype=np.float32)[target]
        tenth[holdout.value] = np.zeros_like(best[holdout.value])
        for user, scores in enumerate(tenth[holdout.value]):
            known = split.history(user, holdout)
            new = np.setdiff1d(np.arange(1, size), [*known, target[user]])
            scores[known], scores[new[:9]], scores[target[user]] = 3.0, 2.0, 1.0
    np.savez(tmp_path / "theirs.0.npz", **best)
    np.savez(tmp_path / "theirs.1.npz", **tenth)
    (row,) = score(dataset, tmp_path)
    assert (row["vectors"], row["seeds"], row["Recall@10"]) == ("theirs", "2", "1.0000 ± .0000")
    at_tenth = 1 / np.log2(11)
    expected = f"{(1 + at_tenth) / 2:.4f} ± {(1 - at_tenth) / 2:.4f}".replace("0.", ".")
    assert row["NDCG@10"] == row["NDCG@20"] == row["validation NDCG@10"] == expected


def test_ours_are_scored_as_theirs(dataset: Path, tmp_path: Path) -> None:
    """A backbone leaves vectors of all users to be found."""
    train_ours(dataset, tmp_path, "ours-gru4rec-softmax", 0, LoopConfig(epochs=1))
    (row,) = score(dataset, tmp_path)
    assert row["vectors"] == "ours-gru4rec-softmax"
    with np.load(tmp_path / "ours-gru4rec-softmax.0.npz") as vectors:
        assert vectors["test"].shape == vectors["validation"].shape == (30, 50)
        assert vectors["items"].shape == (31, 50)
