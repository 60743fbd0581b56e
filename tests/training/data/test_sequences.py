"""Flat sequences read as a list of arrays does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.sequences import Sequences


@given(st.lists(st.lists(st.integers(1, 99), max_size=5), max_size=6))
def test_it_reads_as_the_list_that_it_was_made_of(lists: list[list[int]]) -> None:
    """By number, from the end, in slices, and in order; empty sequences and no sequence at all included."""
    flat = Sequences.of(np.asarray(items, dtype=np.int64) for items in lists)
    assert [items.tolist() for items in flat] == lists
    assert [items.tolist() for items in flat[::2]] == lists[::2]
    assert [flat[row - len(lists)].tolist() for row in range(len(lists))] == lists
    assert flat.lengths.tolist() == [len(items) for items in lists]
    assert flat.owners.tolist() == [row for row, items in enumerate(lists) for _ in items]
    assert Sequences.of(flat) is flat
    with pytest.raises(IndexError):
        flat[len(lists)]


def test_lengths_that_do_not_fit_are_refused() -> None:
    """They would read across users."""
    with pytest.raises(ValueError, match="sum to 3, but there are 2"):
        Sequences(np.array([1, 2]), np.array([1, 2]))


def test_a_sequence_is_a_view() -> None:
    """Nothing is copied to read it."""
    flat = Sequences(np.array([1, 2, 3]), np.array([1, 2]))
    assert np.shares_memory(flat[1], flat.items)
