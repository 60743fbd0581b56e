"""How wide an approximate index must search: measured on queries made from the items themselves.

Axes: B queries, D CF size, K results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

RECALL = 0.98
QUERIES = 32
BASKET = 3
STARTING_WIDTH = 16


@dataclass(frozen=True)
class Probes:
    """Queries of several families, each of which has to be answered well.

    Users are unknown where an index is built. They lie near single items, between items that have little to do with
    each other, or, at the worst, anywhere that the items spread to.

    Attributes:
        queries_B_D: (B, d), family after family.
    """

    DEPTH: ClassVar[int] = 100
    queries_B_D: np.ndarray

    @classmethod
    def of(cls, vectors_N_D: np.ndarray, seed: int = 0) -> Probes:
        """Draw them."""
        random = np.random.default_rng(seed)
        single = vectors_N_D[random.integers(len(vectors_N_D), size=QUERIES)]
        baskets = vectors_N_D[random.integers(len(vectors_N_D), size=(QUERIES, BASKET))].mean(axis=1)
        sample = vectors_N_D[random.integers(len(vectors_N_D), size=min(len(vectors_N_D), 10_000))]
        noise = random.standard_normal((QUERIES, sample.shape[1]))
        anywhere = sample.mean(axis=0) + noise * sample.std(axis=0)
        return cls(np.concatenate([single, baskets, anywhere]).astype(np.float32))

    def recall(self, truth_B_K: np.ndarray, found_B_K: np.ndarray) -> float:
        """The share of the true results that were found, in the family that fares worst."""
        pairs = zip(truth_B_K, found_B_K, strict=True)
        shares = [np.isin(truth, found).mean() for truth, found in pairs]
        return float(np.reshape(shares, (-1, QUERIES)).mean(axis=1).min())


def narrowest(probes: Probes, truth_B_K: np.ndarray, find: Callable[[int], np.ndarray], most: int) -> int:
    """The least width, in steps of a half and a third, with which `find` reaches `RECALL`; `most` if none does."""
    width = STARTING_WIDTH
    while width < most:
        if probes.recall(truth_B_K, find(width)) >= RECALL:
            return width
        width += width // 2
    return most
