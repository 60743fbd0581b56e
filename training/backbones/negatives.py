"""Negatives of a softmax: drawn from a mixture of uniform and popularity, with how often each is to be expected."""

from __future__ import annotations

import numpy as np

POPULARITY_POWER = 0.75
"""As in word2vec (Mikolov et al. 2013)."""


class SharedNegatives:
    """Draws with repeats from `(1 - share) uniform + share counts^0.75`.

    Args:
        items: (n,) item numbers to draw from.
        counts: (n,) how often each was met.
        popularity_share: of the second part.
    """

    def __init__(self, items: np.ndarray, counts: np.ndarray, popularity_share: float) -> None:
        popular = np.maximum(counts, 1) ** POPULARITY_POWER
        odds = (1.0 - popularity_share) / len(items) + popularity_share * popular / popular.sum()
        self._items = items
        self._log_odds = np.log(odds).astype(np.float32)
        self._cumulative = np.cumsum(odds) / odds.sum()

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(count,) item numbers, and (count,) fp32 log of how often each is expected among so many draws."""
        places = np.searchsorted(self._cumulative, rng.random(count), side="right")
        places = np.minimum(places, len(self._items) - 1)
        return self._items[places], self._log_odds[places] + np.float32(np.log(count))
