"""Rankers by inner product in CF space: the backbone itself, and what stage 1 decodes into its space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from models.backbones import Backbone, represent_all
from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import PADDING_ITEM
from models.rankers.base import Audience, LocalRanker

SCORED_ROWS = 4096
NumbersOf = Callable[[Sequence[str]], np.ndarray]
"""Of user ids (E,): each user's number in the backbone's training, 0 for somebody unknown."""


class CollaborativeRanker(LocalRanker):
    """`x_u . E_i` with a table of item vectors.

    Args:
        id: of the ranker.
        title: for people.
        backbone: encodes histories.
        item_vectors: (N+1, d) what candidates are compared with; the backbone's own if not given.
        history_vectors: (N+1, d) what the backbone reads histories with; its own if not given.
        numbers_of: who is known to a backbone that reads users; nobody if not given.
    """

    ranks_catalogue = True

    def __init__(
        self,
        id: str,  # noqa: A002
        title: str,
        backbone: Backbone,
        item_vectors: torch.Tensor | None = None,
        history_vectors: torch.Tensor | None = None,
        numbers_of: NumbersOf | None = None,
    ) -> None:
        self.id, self.title = id, title
        self._backbone = backbone
        self._item_vectors = backbone.item_vectors.detach() if item_vectors is None else item_vectors
        self._history_vectors, self._numbers_of = history_vectors, numbers_of

    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        users_E_D = self._represent(users)
        return candidate_logits(users_E_D, self._item_vectors, candidates_E_C)

    async def score_all(self, users: Audience, items: int) -> np.ndarray:
        """See `Ranker.score_all`: one product, where `score` would gather every item's vector for every user."""
        users_E_D = self._represent(users)
        logits_E_N = (users_E_D @ self._item_vectors[: items + 1].T).cpu().numpy()
        logits_E_N[:, PADDING_ITEM] = -np.inf
        return logits_E_N

    def _represent(self, users: Audience) -> torch.Tensor:
        """x_u (E, d)."""
        numbers = None if self._numbers_of is None else self._numbers_of(users.user_ids)
        return represent_all(self._backbone, users.histories, self._history_vectors, numbers)


@torch.no_grad()
def candidate_logits(users_E_D: torch.Tensor, item_vectors: torch.Tensor, items_E_C: np.ndarray) -> np.ndarray:
    """(E, C) logits `x_u . E_i` of every user's candidates, -inf at padding, by batches of users."""
    scores = []
    for start in range(0, len(items_E_C), SCORED_ROWS):
        items_B_C = torch.tensor(items_E_C[start : start + SCORED_ROWS], device=item_vectors.device)
        users_B_D = users_E_D[start : start + SCORED_ROWS]
        scores_B_C = torch.einsum("bd,bcd->bc", users_B_D, functional.embedding(items_B_C, item_vectors))
        scores.append(scores_B_C.masked_fill(items_B_C == PADDING_ITEM, -torch.inf).cpu().numpy())
    return np.concatenate(scores) if scores else np.zeros(items_E_C.shape, dtype=np.float32)


def user_vectors(model: CatalogueModel, users: Audience) -> torch.Tensor:
    """x_u (E, d), as given or computed."""
    return model.user_vectors(users.histories, users.user_ids) if users.vectors is None else users.vectors
