"""Training sequences cut into windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POOL_BATCHES = 50


class Windows:
    """Training sequences cut into windows of inputs and next items.

    A sequence longer than `max_length` gives several windows, counted from its latest item, so that no interaction
    is lost; sequences of one item give none.

    Args:
        sequences: U arrays of item numbers, oldest first.
        max_length: T, the longest window.

    Attributes:
        items: (W, T+1) item numbers padded with 0 on the left: inputs are `[:, :-1]`, targets `[:, 1:]`.
        users: (W,) row of the user of each window.
        lengths: (W,) inputs of each window.
    """

    def __init__(self, sequences: Sequence[np.ndarray], max_length: int) -> None:
        spans = [
            (user, max(0, end - max_length - 1), end)
            for user, sequence in enumerate(sequences)
            for end in range(len(sequence), 1, -max_length)
        ]
        self.users = np.asarray([user for user, _, _ in spans], dtype=np.int64)
        self.lengths = np.asarray([end - start - 1 for _, start, end in spans], dtype=np.int64)
        self.items = np.zeros((len(spans), max_length + 1), dtype=np.int64)
        for row, (user, start, end) in enumerate(spans):
            self.items[row, start - end :] = sequences[user][start:end]

    def batches(self, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Rows of an epoch's batches in random order; windows of like length share a batch, to save padding."""
        order = rng.permutation(len(self.users))
        pool = batch_size * POOL_BATCHES
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        ordered = [rows[np.argsort(self.lengths[rows], kind="stable")] for rows in pools]
        batches = [rows[at : at + batch_size] for rows in ordered for at in range(0, len(rows), batch_size)]
        return [batches[index] for index in rng.permutation(len(batches))]
