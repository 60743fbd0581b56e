"""The first step from a user to a ranked list: which items are in question, best first.

Axes: K items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import Catalogue
from models.recommending.person import Person


@dataclass(frozen=True)
class Pool:
    """Which items may be ranked: given ones, or all of the catalogue.

    Attributes:
        candidates: item numbers in the order given; None for all items.
        allowed: only these; None for all.
        excluded: never these.
        count: how many are retrieved, where none are given.
    """

    candidates: list[int] | None
    allowed: np.ndarray | None
    excluded: set[int]
    count: int

    def deeper(self, times: int) -> Pool:
        """The same for so many times as many items."""
        return replace(self, count=self.count * times)

    def passes(self, items: np.ndarray) -> np.ndarray:
        """(K,) bool: which of `items` (K,) may be."""
        passed = ~np.isin(items, np.fromiter(self.excluded, dtype=np.int64, count=len(self.excluded)))
        return passed if self.allowed is None else passed & np.isin(items, self.allowed)

    def given(self) -> list[int]:
        """The candidates that pass the filters."""
        allowed = None if self.allowed is None else set(self.allowed.tolist())
        return [
            item for item in self.candidates or () if item not in self.excluded and (allowed is None or item in allowed)
        ]


@torch.inference_mode()
def retrieve(model: CatalogueModel, pool: Pool, user_vector: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Items (K,) and their collaborative logits (K,), best first.

    Args:
        model: the catalogue's vectors and index.
        pool: which items may be.
        user_vector: (d,) x_u.
    """
    if pool.candidates is not None:
        items = np.asarray(pool.given(), dtype=np.int64)
        scores = model.cf_logits(user_vector, items)
    else:
        found_1_C, scores_1_C = model.index.search(
            user_vector.cpu().numpy()[None],
            min(pool.count, len(model.catalogue)),
            allowed=pool.allowed,
            excluded=np.fromiter(pool.excluded, dtype=np.int64),
        )
        items, scores = found_1_C[0][found_1_C[0] > 0], scores_1_C[0][found_1_C[0] > 0]
    order = np.argsort(-scores, kind="stable")
    return items[order], scores[order]


class Finder(Protocol):
    """What finds items for a user, best first."""

    def find(self, pool: Pool, person: Person) -> np.ndarray:
        """(K,) item numbers that `pool` lets pass.

        Args:
            pool: which items may be, and how many.
            person: for whom.
        """


class IndexFinder:
    """By the index alone, in its order.

    Args:
        model: whose index.
    """

    def __init__(self, model: CatalogueModel) -> None:
        self._model = model

    def find(self, pool: Pool, person: Person) -> np.ndarray:
        """See `Finder.find`."""
        return retrieve(self._model, pool, person.vector)[0]


def most_popular(catalogue: Catalogue, pool: Pool) -> np.ndarray:
    """(K,) what anyone might like, for who cannot be known; by training interactions."""
    if pool.candidates is not None:
        given = np.asarray(pool.given(), dtype=np.int64)
        return given[np.argsort(-catalogue.interactions[given], kind="stable")]
    ranking = catalogue.by_popularity
    if pool.allowed is not None:
        ranking = pool.allowed[np.argsort(-catalogue.interactions[pool.allowed], kind="stable")]
    kept = (int(item) for item in ranking if int(item) not in pool.excluded)
    return np.fromiter(islice(kept, pool.count), dtype=np.int64)
