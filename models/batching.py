"""Batches of rows of like length, so that little of them is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def batches_of_like_length(
    lengths: Sequence[float] | np.ndarray, *, most_rows: int | None = None, most_padded: float | None = None
) -> Iterator[np.ndarray]:
    """Row numbers, shortest first; equal lengths keep their order.

    Args:
        lengths: of each row.
        most_rows: rows of a batch; any number if not given.
        most_padded: rows of a batch times the longest of them; any number if not given. A row that is longer by itself
            is a batch of its own.
    """
    order = np.argsort(lengths, kind="stable")
    yield from consecutive(order, lengths, most_rows=most_rows, most_padded=most_padded)


def consecutive(
    order: np.ndarray,
    lengths: Sequence[float] | np.ndarray,
    *,
    most_rows: int | None = None,
    most_padded: float | None = None,
) -> Iterator[np.ndarray]:
    """`order`, row numbers, cut into batches; the other arguments as in `batches_of_like_length`."""
    start, longest = 0, 0.0
    for end, row in enumerate(order):
        longest = max(longest, float(lengths[row]))
        full = most_rows is not None and end - start == most_rows
        wide = most_padded is not None and longest * (end - start + 1) > most_padded
        if end > start and (full or wide):
            yield order[start:end]
            start, longest = end, float(lengths[row])
    if start < len(order):
        yield order[start:]
