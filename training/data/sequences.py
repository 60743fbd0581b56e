"""Many sequences of item numbers in one array: an array of its own for each user costs more than what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class Sequences(Sequence[np.ndarray]):
    """U sequences, read as a list of arrays is.

    Args:
        items: (n,) int64, all sequences one after the other.
        lengths: (U,) of each sequence.
    """

    def __init__(self, items: np.ndarray, lengths: np.ndarray) -> None:
        self.items = items
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        if self.offsets[-1] != len(items):
            raise ValueError(f"lengths sum to {self.offsets[-1]}, but there are {len(items)} items")

    @classmethod
    def of(cls, arrays: Iterable[np.ndarray]) -> Sequences:
        """From an array each; what is flat already stays as it is."""
        if isinstance(arrays, Sequences):
            return arrays
        listed = [np.asarray(array, dtype=np.int64) for array in arrays]
        return cls(np.concatenate([np.zeros(0, dtype=np.int64), *listed]), np.asarray([len(array) for array in listed]))

    def __len__(self) -> int:
        """The number of sequences U."""
        return len(self.lengths)

    @overload
    def __getitem__(self, user: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, user: slice) -> list[np.ndarray]: ...

    def __getitem__(self, user: int | slice) -> np.ndarray | list[np.ndarray]:
        """(n,) the items of a user, a view; a list of them for a slice."""
        if isinstance(user, slice):
            return [self[row] for row in range(*user.indices(len(self)))]
        row = range(len(self))[user]
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    @property
    def owners(self) -> np.ndarray:
        """(n,) the row of the user of each item."""
        return np.repeat(np.arange(len(self)), self.lengths)
