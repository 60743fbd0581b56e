"""Titles of one series begin with the same words: parts of a film, volumes of a book, what one brand sells.

Axes: N items, W words of a beginning, T items of a history, C candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np

from models.alignment.words import words_of

LONGEST = 8
"""Words of a title that are compared."""
LATEST = 10
"""History items that titles are compared with."""


class TitleSeries:
    """How much it says that a title begins as one of the history does: `log(N / titles that begin so)`, in nats.

    Args:
        titles: N+1, padding first; they are read when first asked about.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        self._titles = titles

    def rarest(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(C,) by the rarest beginning that the candidate shares with any of the history; 0 without one."""
        beginnings_N_W, told = self._beginnings
        shared = np.zeros(len(told), dtype=bool)
        shared[beginnings_N_W[history[-LATEST:]]] = True
        return np.asarray((told * shared)[beginnings_N_W[items]].max(axis=1))

    @cached_property
    def _beginnings(self) -> tuple[np.ndarray, np.ndarray]:
        """(N+1, W) numbers of what titles begin with, 0 where no other title does, and what each of these says."""
        words = [tuple(accumulate((word,) for word in words_of(title)[:LONGEST])) for title in self._titles]
        counts = Counter(beginning for title in words for beginning in title)
        numbers = {beginning: row for row, beginning in enumerate((b for b, n in counts.items() if n > 1), start=1)}
        table_N_W = np.zeros((len(words), LONGEST), dtype=np.int32)
        for item, title in enumerate(words):
            table_N_W[item, : len(title)] = [numbers.get(beginning, 0) for beginning in title]
        told = [0.0, *(np.log((len(words) - 1) / counts[beginning]) for beginning in numbers)]
        return table_N_W, np.asarray(told)
