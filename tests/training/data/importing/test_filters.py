"""Rating threshold, repeats, the k-core, and the account of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import DataError
from training.data.dataset import Dataset
from training.data.importing.filtering import first_of_pairs, k_core
from training.data.importing.importer import ImportConfig, prepare


def imported(folder: Path, rows: str, **options: Any) -> Dataset:
    """Import `rows` of user item time rating, with items a to e."""
    interactions = folder / "interactions.csv"
    interactions.write_text("user,item,time,rating\n" + "".join(",".join(row) + "\n" for row in _split(rows)))
    items = folder / "items.csv"
    items.write_text("item,title\n" + "".join(f"{item},{item.upper()}\n" for item in "abcde"))
    return prepare(ImportConfig(sources=(interactions, items), **options)).run()[0]


def _split(rows: str) -> list[list[str]]:
    return [row.split() for row in rows.strip().splitlines()]


def test_ratings_at_the_threshold_stay(tmp_path: Path) -> None:
    dataset = imported(tmp_path, "u a 1 4\nu b 2 3.9\nu c 3 5", min_rating=4)
    assert dataset.interactions["item_id"].to_list() == ["a", "c"]
    assert dataset.info.interactions.dropped == {"rating below 4": 1}


def test_repeats_stay_unless_only_the_first_is_wanted(tmp_path: Path) -> None:
    """u meets a at 5 and again at 9, though the file has the later one first."""
    rows = "u a 9 1\nu b 7 1\nu a 5 2\nv a 6 1"
    dataset = imported(tmp_path, rows, drop_repeats=True)
    assert dataset.interactions.rows() == [("u", "a", 5, 2.0), ("u", "b", 7, 1.0), ("v", "a", 6, 1.0)]
    assert dataset.info.interactions.dropped == {"repeated user-item pair": 1}
    kept = imported(tmp_path, rows)
    assert kept.interactions["item_id"].to_list() == ["a", "b", "a", "a"]


def test_equal_times_keep_the_order_of_the_file(tmp_path: Path) -> None:
    dataset = imported(tmp_path, "u c 1 1\nv b 1 1\nu a 1 1\nu b 1 1")
    assert dataset.interactions["item_id"].to_list() == ["c", "a", "b", "b"]


def test_the_core_is_repeated_to_its_fixed_point(tmp_path: Path) -> None:
    """2-core: d falls (one row), so w keeps one row and falls, so c keeps one row and falls, so v falls."""
    rows = "u a 1 1\nu b 2 1\nt a 1 1\nt b 2 1\nv c 1 1\nv a 2 1\nw c 1 1\nw d 2 1"
    dataset = imported(tmp_path, rows, min_user_interactions=2, min_item_interactions=2)
    assert dataset.interactions["user_id"].to_list() == ["t", "t", "u", "u"]
    assert dataset.info.interactions.dropped == {"outside the core (at least 2 a user, 2 an item)": 4}
    assert dataset.info.unseen_items == 3
    assert dataset.items["item_id"].to_list() == list("abcde")


def test_unseen_items_can_be_dropped(tmp_path: Path) -> None:
    dataset = imported(tmp_path, "u a 1 1\nu c 2 1", drop_unseen_items=True)
    assert dataset.items["item_id"].to_list() == ["a", "c"]
    assert dataset.info.items.dropped == {"without interactions": 3}
    assert dataset.info.unseen_items == 0


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of 2 rows read, 1 rating below 3, 1 outside the core.*filter less"):
        imported(tmp_path, "u a 1 1\nu c 2 5", min_rating=3, min_user_interactions=2)


def _core_by_sets(pairs: list[tuple[int, int]], min_user: int, min_item: int) -> set[int]:
    """The k-core by its definition, one row at a time."""
    left = set(range(len(pairs)))
    while True:
        for row in left:
            user, item = pairs[row]
            same_user = sum(pairs[other][0] == user for other in left)
            same_item = sum(pairs[other][1] == item for other in left)
            if same_user < min_user or same_item < min_item:
                left.remove(row)
                break
        else:
            return left


@settings(max_examples=100, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30),
    min_user=st.integers(1, 4),
    min_item=st.integers(1, 4),
)
def test_the_core_equals_its_definition(pairs: list[tuple[int, int]], min_user: int, min_item: int) -> None:
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    kept = np.flatnonzero(k_core(users, items, min_user, min_item))
    assert set(kept.tolist()) == _core_by_sets(pairs, min_user, min_item)


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20))
def test_first_of_pairs_equals_its_definition(pairs: list[tuple[int, int]]) -> None:
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    expected = [pair not in pairs[:row] for row, pair in enumerate(pairs)]
    assert first_of_pairs(users, items).tolist() == expected
