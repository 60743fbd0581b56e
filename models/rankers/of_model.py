"""The rankers that a bundle can be served with: what its blends weigh."""

from __future__ import annotations

import numpy as np
import torch

from models.bundle.catalogue_model import CatalogueModel
from models.composer import PromptComposer
from models.engines.base import LLMEngine
from models.rankers.base import Audience, Ranker
from models.rankers.collaborative import candidate_logits
from models.rankers.llm import LLMRanker
from models.rankers.signals import signal_rankers

LLM_SIGNAL = "allmrec"
"""The one ranker whose scores need the LLM."""


class ModelRanker(Ranker):
    """`x_u . E_i` as the bundle has them: what retrieval ranks by.

    Args:
        model: of the catalogue.
    """

    id = "cf"
    ranks_catalogue = True

    def __init__(self, model: CatalogueModel) -> None:
        self.title = f"CF ({type(model.backbone).__name__})"
        self._model = model

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        return candidate_logits(user_vectors(self._model, users), self._model.cf_vectors, candidates_E_C)


def user_vectors(model: CatalogueModel, users: Audience) -> torch.Tensor:
    """x_u (E, d), as given or computed."""
    return model.user_vectors(users.histories, users.user_ids) if users.vectors is None else users.vectors


def signals_of(model: CatalogueModel) -> list[Ranker]:
    """All signals without an LLM."""
    return [ModelRanker(model), *signal_rankers(model.signals)]


def llm_signal(engine: LLMEngine, composer: PromptComposer) -> LLMRanker:
    """The LLM's."""
    return LLMRanker(LLM_SIGNAL, "A-LLMRec", engine, composer)
