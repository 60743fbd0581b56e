"""Training sequences cut into windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.catalogue import PADDING_ITEM
from training.data.sequences import Sequences

POOL_BATCHES = 50


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one step.

    Attributes:
        rows: (B,) of the windows.
        seed: of their negatives, drawn for all of them whoever computes which.
        part: index and count of the parts that they are dealt out to, one of which is computed here.
    """

    rows: np.ndarray
    seed: tuple[int, int, int]
    part: tuple[int, int] = (0, 1)

    @property
    def mine(self) -> slice:
        """Which of the rows are computed here."""
        index, count = self.part
        return slice(index, None, count)

    @property
    def own(self) -> np.ndarray:
        """The rows that are computed here."""
        return self.rows[self.mine]


class Windows:
    """Training sequences cut into windows of inputs and next items.

    A sequence longer than `max_length` gives several windows, counted from its latest item, so that no interaction
    is lost; sequences of one item give none. Only where each starts and ends is kept, beside the sequences.

    Args:
        sequences: U arrays of item numbers, oldest first.
        max_length: T, the longest window.

    Attributes:
        users: (W,) row of the user of each window.
        lengths: (W,) inputs of each window.
    """

    def __init__(self, sequences: Sequence[np.ndarray], max_length: int) -> None:
        flat = Sequences.of(sequences)
        steps = np.maximum(flat.lengths - 1, 0)
        counts = -(-steps // max_length)
        self.users = np.repeat(np.arange(len(flat)), counts)
        number = np.arange(len(self.users)) - np.repeat(np.cumsum(counts) - counts, counts)
        before = number * max_length  # steps of later windows of the same user
        self.lengths = np.minimum(max_length, steps[self.users] - before)
        self._stops = flat.offsets[self.users + 1] - before
        self._sequences = flat

    def items_of(self, rows: np.ndarray) -> np.ndarray:
        """(B, T+1) item numbers of some windows, padded with 0 on the left to the longest of them.

        Inputs are `[:, :-1]`, targets `[:, 1:]`.
        """
        lengths = self.lengths[rows] + 1
        width = int(lengths.max())
        places_B_T = self._stops[rows][:, None] + np.arange(-width, 0)
        real_B_T = np.arange(-width, 0) >= -lengths[:, None]
        return np.where(real_B_T, self._sequences.items[np.maximum(places_B_T, 0)], PADDING_ITEM)

    def part(self, batch: WindowBatch, index: int, count: int) -> tuple[WindowBatch | None, float]:
        """As `Task.part`: every `count`-th window; a share of the loss is one of the positions."""
        part = replace(batch, part=(index, count))
        steps = self.lengths[part.own].sum()
        return part if steps else None, float(steps / self.lengths[batch.rows].sum())

    def positions_of(self, batch: WindowBatch) -> np.ndarray:
        """(M,) bool: which of the positions of all of a batch's windows are computed here."""
        mine_B = np.zeros(len(batch.rows), dtype=bool)
        mine_B[batch.mine] = True
        return np.repeat(mine_B, self.lengths[batch.rows])

    @property
    def distinct_items(self) -> np.ndarray:
        """All items of the sequences, ascending, each once."""
        return np.unique(self._sequences.items)

    def batches(self, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Rows of an epoch's batches in random order; windows of like length share a batch, to save padding."""
        order = rng.permutation(len(self.users))
        pool = batch_size * POOL_BATCHES
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        ordered = [rows[np.argsort(self.lengths[rows], kind="stable")] for rows in pools]
        batches = [rows[at : at + batch_size] for rows in ordered for at in range(0, len(rows), batch_size)]
        return [batches[index] for index in rng.permutation(len(batches))]
