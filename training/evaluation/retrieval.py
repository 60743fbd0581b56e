"""Retrieval by itself: where the held-out item stands among all items that the user does not know yet.

Axes: E users, K items found, D CF size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.backbones import Backbone, represent_all
from models.bundle.index import ItemIndex
from training.evaluation.held_out import HeldOut

CUTOFFS = (20, 100)
SEARCH_ROWS = 1024


@dataclass(frozen=True)
class Retriever:
    """A way to search the catalogue.

    Attributes:
        id: stable, for reports.
        title: for people.
        backbone: encodes histories.
        index: over item vectors.
        history_vectors: (N+1, d) what the backbone reads histories with; its own if not given.
    """

    id: str
    title: str
    backbone: Backbone
    index: ItemIndex
    history_vectors: torch.Tensor | None = None


def retriever_ranks(retriever: Retriever, held_out: HeldOut) -> np.ndarray:
    """(E,) the positives' ranks; see `retrieval_ranks`."""
    users_E_D = represent_all(retriever.backbone, held_out.users.histories, retriever.history_vectors)
    return retrieval_ranks(retriever.index, users_E_D.cpu().numpy(), held_out)


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
