"""The injected tokens read by the token law: what an LLM would rank that made no mistake in reading them.

It is the opponent by which the LLM's own reading is measured: with it, but without an LLM. And it is a signal of the
blend, at no more than a product of vectors: what stages 1 and 2 learned is there when the LLM is not.
"""

from __future__ import annotations

import numpy as np
import torch

from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import PADDING_ITEM
from models.llm.law import ExactReader, TokenLaw
from models.rankers.base import Audience, LocalRanker, mask_padding
from models.rankers.collaborative import user_vectors

READ_ITEMS = 1 << 16
READ_VALUES = 1 << 24
"""Numbers of candidates that are held at once: 64 MB."""


class TokenRanker(LocalRanker):
    """The law's logits of the tokens that `LLMRanker` injects.

    Args:
        id: of the ranker.
        title: for people.
        model: whose tokens they are.
        law: how they are read.
        text_only: read q_i for every item.
        resting: the projections are trained no more, so that items are read once.
    """

    ranks_catalogue = True

    def __init__(
        self,
        id: str,  # noqa: A002
        title: str,
        model: CatalogueModel,
        law: TokenLaw,
        *,
        text_only: bool = False,
        resting: bool = False,
    ) -> None:
        self.id, self.title = id, title
        self._model, self._law = model, law
        self._joint = model.joint_text if text_only else model.joint_item
        self._reader = ExactReader(model.projector, law.interface.to(self._joint.device))
        self._items_N_Y = self._read_items() if resting else None

    @torch.inference_mode()
    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        items_N_Y, shown, users_E_Y1 = self._read(users)
        series_E_C = torch.from_numpy(self._law.series(shown, candidates_E_C)).to(users_E_Y1)
        rows = max(1, READ_VALUES // max(1, candidates_E_C.shape[1] * items_N_Y.shape[1]))
        scores_E_C = np.zeros(candidates_E_C.shape)
        for start in range(0, len(candidates_E_C), rows):
            part = slice(start, start + rows)
            items_B_C = torch.tensor(candidates_E_C[part]).to(items_N_Y.device)
            logits = self._reader.logits(users_E_Y1[part], items_N_Y[items_B_C], series_E_C[part])
            scores_E_C[part] = logits.cpu().numpy()
        return mask_padding(scores_E_C, candidates_E_C)

    async def score_all(self, users: Audience, items: int) -> np.ndarray:
        """See `Ranker.score_all`: one product, where `score` would gather every item for every user."""
        return self._compute_all(users, items)

    @torch.inference_mode()
    def _compute_all(self, users: Audience, items: int) -> np.ndarray:
        items_N_Y, shown, users_E_Y1 = self._read(users)
        everything_E_N = np.broadcast_to(np.arange(items + 1), (len(users), items + 1))
        series_E_N = torch.from_numpy(self._law.series(shown, everything_E_N)).to(users_E_Y1)
        scores_E_N = self._reader.logits_of_all(users_E_Y1, items_N_Y[: items + 1], series_E_N).cpu().numpy()
        scores_E_N[:, PADDING_ITEM] = -np.inf
        return np.asarray(scores_E_N)

    def _read(self, users: Audience) -> tuple[torch.Tensor, list[np.ndarray], torch.Tensor]:
        """(N+1, Y) the items, what a prompt shows of E users, and (E, Y1) what it says of them."""
        items_N_Y = self._read_items() if self._items_N_Y is None else self._items_N_Y
        shown = [history[max(0, len(history) - self._law.shown) :] for history in users.histories]
        return items_N_Y, shown, self._reader.users_of(user_vectors(self._model, users), items_N_Y, shown)

    @torch.inference_mode()
    def _read_items(self) -> torch.Tensor:
        return torch.cat([self._reader.items(block) for block in torch.split(self._joint, READ_ITEMS)])
