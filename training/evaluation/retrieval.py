"""Retrieval by itself: where the held-out item stands among all items that the user does not know yet.

Axes: E users, K items found, D CF size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from models.backbones import Backbone, represent_all
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.rankers.collaborative import NumbersOf
from models.recommending.person import persons
from models.recommending.retrieve import Finder, Pool
from training.evaluation.held_out import HeldOut

CUTOFFS = (20, 100)
SEARCH_ROWS = 1024


class Retriever(ABC):
    """A way to search the catalogue.

    Attributes:
        id: stable, for reports.
        title: for people.
    """

    id: str
    title: str

    @abstractmethod
    def ranks(self, held_out: HeldOut) -> np.ndarray:
        """(E,) the positive's rank among the items that the user does not know yet; infinite beyond the last cutoff.

        A positive that the user met before counts as new, as it does among candidates.
        """


@dataclass(frozen=True)
class IndexRetriever(Retriever):
    """By inner product.

    Attributes:
        id: see `Retriever`.
        title: see `Retriever`.
        backbone: encodes histories.
        index: over item vectors.
        history_vectors: (N+1, d) what the backbone reads histories with; its own if not given.
        numbers_of: who is known to a backbone that reads users; nobody if not given.
    """

    id: str
    title: str
    backbone: Backbone
    index: ItemIndex
    history_vectors: torch.Tensor | None = None
    numbers_of: NumbersOf | None = None

    def ranks(self, held_out: HeldOut) -> np.ndarray:
        """See `Retriever.ranks`."""
        users = held_out.users
        numbers = None if self.numbers_of is None else self.numbers_of(users.user_ids)
        users_E_D = represent_all(self.backbone, users.histories, self.history_vectors, numbers)
        return retrieval_ranks(self.index, users_E_D.cpu().numpy(), held_out)


@dataclass(frozen=True)
class FinderRetriever(Retriever):
    """As serving retrieves.

    Attributes:
        id: see `Retriever`.
        title: see `Retriever`.
        model: represents users.
        finder: finds items for them.
    """

    id: str
    title: str
    model: CatalogueModel
    finder: Finder

    def ranks(self, held_out: HeldOut) -> np.ndarray:
        """See `Retriever.ranks`."""
        ranks = np.full(len(held_out), np.inf)
        everyone = persons(self.model, held_out.users.histories, held_out.users.user_ids)
        for row, (person, positive) in enumerate(zip(everyone, held_out.positives, strict=True)):
            pool = Pool(None, None, set(person.history.tolist()) - {int(positive)}, max(CUTOFFS))
            place = np.flatnonzero(self.finder.find(pool, person) == positive)
            if len(place):
                ranks[row] = place[0] + 1
        return ranks


def retrieval_ranks(index: ItemIndex, users_E_D: np.ndarray, held_out: HeldOut) -> np.ndarray:
    """(E,) the positive's rank among the items that the user does not know yet; infinite beyond the last cutoff."""
    histories, positives = held_out.users.histories, held_out.positives
    ranks = np.full(len(positives), np.inf)
    for start in range(0, len(positives), SEARCH_ROWS):
        rows = range(start, min(start + SEARCH_ROWS, len(positives)))
        known = max(len(histories[row]) for row in rows)
        found_B_C, _ = index.search(users_E_D[start : rows.stop], min(len(index), max(CUTOFFS) + known))
        for row, found in zip(rows, found_B_C, strict=True):
            # A positive that the user met before counts as new, as it does among the candidates.
            new = found[~np.isin(found, histories[row]) | (found == positives[row])]
            place = np.flatnonzero(new == positives[row])
            if len(place):
                ranks[row] = place[0] + 1
    return ranks
