"""Gathers candidates from several sources: nobody who ranks them can bring back what no source gave.

Axes: N items, K items found.
"""

from __future__ import annotations

import numpy as np
import torch

from models.bundle.catalogue_model import CatalogueModel
from models.bundle.retrieval import Retrieval, Source
from models.catalogue import PADDING_ITEM
from models.rankers.signals import LATEST, Followed
from models.recommending.person import Person
from models.recommending.retrieve import Pool, retrieve


class Sources:
    """The sources of one bundle.

    Args:
        model: of the catalogue.
        retrieval: which of them, and how much of each.
    """

    def __init__(self, model: CatalogueModel, retrieval: Retrieval) -> None:
        self._model, self._retrieval = model, retrieval
        self._followed = Followed(model.signals)

    @torch.inference_mode()
    def gather(self, pool: Pool, person: Person) -> np.ndarray:
        """(K,) items that `pool` lets pass, each once: first those of the index, best first, then the others'.

        Args:
            pool: which items may be, and how many are to be kept of what is gathered.
            person: for whom.
        """
        deep = pool.deeper(self._retrieval.depth)
        found = []
        for source in self._retrieval.sources:
            match source:
                case Source.CF:
                    found.append(retrieve(self._model, deep, person.vector)[0])
                case Source.FOLLOWED:
                    found.append(self._by_sequence(deep, person.history))
                case Source.TEXT:
                    found.append(self._by_text(deep, person.history))
        items, places = np.unique(np.concatenate(found), return_index=True)
        return items[np.argsort(places)]

    def _by_sequence(self, pool: Pool, history: np.ndarray) -> np.ndarray:
        """Those that came near most often, for how popular they are."""
        near_N = self._followed.near_like(history)
        return _best(near_N, np.flatnonzero(near_N), pool)

    def _by_text(self, pool: Pool, history: np.ndarray) -> np.ndarray:
        """The nearest texts of the latest items."""
        tables, latest = self._model.signals, history[-LATEST:]
        like_N = np.zeros(len(tables.popularity))
        np.maximum.at(like_N, tables.neighbours[latest], tables.neighbour_weights[latest].astype(np.float64))
        return _best(like_N, np.flatnonzero(like_N), pool)


def _best(scores_N: np.ndarray, items: np.ndarray, pool: Pool) -> np.ndarray:
    """(K,) at most `pool.count` of `items` that pass, those of the highest scores, best first."""
    passed = items[(items != PADDING_ITEM) & pool.passes(items)]
    return passed[np.argsort(-scores_N[passed], kind="stable")][: pool.count]
