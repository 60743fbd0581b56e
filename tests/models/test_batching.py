"""Batches of rows of like length."""

from __future__ import annotations

import numpy as np

from models.batching import batches_of_like_length, consecutive


def test_rows_come_shortest_first_and_each_once() -> None:
    """At most two a batch."""
    batches = [rows.tolist() for rows in batches_of_like_length([5, 1, 3, 1], most_rows=2)]
    assert batches == [[1, 3], [2, 0]]


def test_a_batch_keeps_to_its_padded_size() -> None:
    """1, 1, 3 padded are 9 > 8, so 3 begins another; 20 is too long for any and has its own."""
    batches = [rows.tolist() for rows in batches_of_like_length([1, 1, 3, 20], most_padded=8)]
    assert batches == [[0, 1], [2], [3]]


def test_a_given_order_is_only_cut() -> None:
    """The longest so far decides what a row costs."""
    batches = [rows.tolist() for rows in consecutive(np.array([2, 0, 1]), [1, 2, 4], most_padded=8)]
    assert batches == [[2, 0], [1]]


def test_no_rows_are_no_batches() -> None:
    """Rather than one without rows."""
    assert list(batches_of_like_length([])) == []
