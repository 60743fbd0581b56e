"""In which order a prompt lists its candidates."""

from __future__ import annotations

import numpy as np


def listing_order(items: np.ndarray) -> np.ndarray:
    """A random order of (K,) distinct items, as positions: how a prompt lists them in evaluation and serving.

    It depends on which items they are and not on how they are ranked, so that equal requests get equal answers.
    """
    by_number = np.argsort(items)
    return by_number[np.random.default_rng(items[by_number]).permutation(len(items))]
