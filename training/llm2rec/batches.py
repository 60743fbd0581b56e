"""Batches of token sequences. Axes: B rows, T tokens of the longest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from models.batching import consecutive

POOL_BATCHES = 8
"""So many batches share what is sorted by length: enough to save most of the padding, and to mix."""


@dataclass(frozen=True)
class Dealt:
    """Rows of a batch, what seeds all that is random about them, and to how many processes they are dealt out.

    Attributes:
        rows: numbers of all rows.
        seed: of the batch.
        index: which of the processes this one is.
        count: of processes that have rows.
    """

    rows: np.ndarray
    seed: tuple[int, int, int] = (0, 0, 0)
    index: int = 0
    count: int = 1

    @property
    def mine(self) -> slice:
        """Which of the rows are computed here."""
        return slice(self.index, None, self.count)

    def part(self, index: int, count: int, weights: np.ndarray | None = None) -> tuple[Dealt | None, float]:
        """As `Task.part`; the first has all rows where they do not go round.

        Args:
            index: the process.
            count: of processes.
            weights: what each row counts in the loss; all alike if not given.
        """
        if len(self.rows) < count:
            return (self, 1.0) if index == 0 else (None, 0.0)
        part = replace(self, index=index, count=count)
        counted = np.ones(len(self.rows)) if weights is None else weights
        return part, float(counted[part.mine].sum() / counted.sum())


class Padded(NamedTuple):
    """Rows padded on the right.

    Attributes:
        ids: (B, T) int64, 0 at padding.
        real: (B, T) int64, 1 where there is a token: the `attention_mask` of transformers.
    """

    ids: torch.Tensor
    real: torch.Tensor


def padded(rows: Sequence[Sequence[int] | np.ndarray], device: torch.device | str) -> Padded:
    """Pad on the right, so that what is padded changes no token's position."""
    lengths = np.asarray([len(row) for row in rows])
    real_B_T = np.arange(lengths.max()) < lengths[:, None]
    ids_B_T = np.zeros(real_B_T.shape, dtype=np.int64)
    ids_B_T[real_B_T] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return Padded(torch.from_numpy(ids_B_T).to(device), torch.from_numpy(real_B_T.astype(np.int64)).to(device))


def mixed_batches(
    lengths: np.ndarray,
    rng: np.random.Generator,
    *,
    most_rows: int | None = None,
    most_padded: float | None = None,
) -> list[np.ndarray]:
    """Row numbers of an epoch's batches in random order; rows of like length share a batch.

    Args:
        lengths: of each row.
        rng: of the epoch.
        most_rows: rows of a batch.
        most_padded: tokens of a batch, padding included.
    """
    order = rng.permutation(len(lengths))
    rows = most_rows or max(1, int((most_padded or 1) // max(1.0, float(lengths.mean()))))
    pools = [order[at : at + rows * POOL_BATCHES] for at in range(0, len(order), rows * POOL_BATCHES)]
    batches = [
        batch
        for pool in pools
        for batch in consecutive(
            pool[np.argsort(lengths[pool], kind="stable")], lengths, most_rows=most_rows, most_padded=most_padded
        )
    ]
    return [batches[index] for index in rng.permutation(len(batches))]
