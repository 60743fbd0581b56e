"""The rankers that a bundle can be served with: what its blends weigh."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.backbones import Backbone
from models.bundle.catalogue_model import CatalogueModel
from models.composer import Asked, PromptComposer
from models.engines.base import LLMEngine
from models.rankers.base import Audience, LocalRanker, Ranker
from models.rankers.collaborative import CollaborativeRanker, candidate_logits, user_vectors
from models.rankers.llm import LLMRanker
from models.rankers.signals import signal_rankers
from models.rankers.title_likelihood import InjectedTitleRanker, TitleLikelihoodRanker, TitlePriorRanker
from models.rankers.tokens import TokenRanker
from models.rankers.user_encoder import UserEncoderRanker

CHOICES = "allmrec"
"""A-LLMRec: the LLM reads injected tokens and chooses among the candidates that its prompt lists."""
TITLES = TitleLikelihoodRanker.id
"""The LLM says how likely each title follows those of the history."""

INJECTED = InjectedTitleRanker.id
"""The same, with injected tokens beside those titles, and less than it is likely to follow anything."""

ENCODER = UserEncoderRanker.id
"""The LLM reads the history alone, and a head makes a user vector of the state it is in then."""

SECOND = "cf_second"
"""Another backbone, trained by another objective: what both agree in is surer."""

TOKENS = "tokens"
"""What A-LLMRec's injected tokens say, read by the law that its LLM was taught instead of by the LLM."""

TITLE_PRIOR = TitlePriorRanker.id
"""What is taken from that, by a share that the blend fits: of no use alone."""

Asks = Callable[[PromptComposer, torch.Tensor, np.ndarray, np.ndarray], Asked]
"""Makes the question about a user (d,) with a history (T,), oldest first, and candidates (C,)."""


def _choice(composer: PromptComposer, user_vector: torch.Tensor, history: np.ndarray, items: np.ndarray) -> Asked:
    return composer.recommend(user_vector, composer.template.config.shown(history).tolist(), items)


def _titles(composer: PromptComposer, _: torch.Tensor, history: np.ndarray, items: np.ndarray) -> Asked:
    return composer.title_likelihood(history.tolist(), items)


def _injected(composer: PromptComposer, user_vector: torch.Tensor, history: np.ndarray, items: np.ndarray) -> Asked:
    return composer.injected_titles(user_vector, history.tolist(), items)


def _encoding(composer: PromptComposer, _: torch.Tensor, history: np.ndarray, __: np.ndarray) -> Asked:
    return composer.encoding(history.tolist())


WAYS: dict[str, Asks] = {CHOICES: _choice, TITLES: _titles, INJECTED: _injected, ENCODER: _encoding}
"""How an LLM can be asked about candidates, by the id of the signal that its answer is, or is made of."""


class ModelRanker(LocalRanker):
    """`x_u . E_i` as the bundle has them: what retrieval ranks by.

    Args:
        model: of the catalogue.
    """

    id = "cf"
    ranks_catalogue = True

    def __init__(self, model: CatalogueModel) -> None:
        self.title = f"CF ({type(model.backbone).__name__})"
        self._model = model

    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        return candidate_logits(user_vectors(self._model, users), self._model.cf_vectors, candidates_E_C)


class SecondRanker(CollaborativeRanker):
    """The same by another backbone, which knows nobody by name.

    Args:
        backbone: the bundle's second.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(SECOND, f"Second CF ({type(backbone).__name__})", backbone)

    def _represent(self, users: Audience) -> torch.Tensor:
        return super()._represent(users) if users.seconds is None else users.seconds


def signals_of(model: CatalogueModel) -> list[LocalRanker]:
    """All signals without an LLM."""
    second = [] if model.second is None else [SecondRanker(model.second)]
    tokens = [] if model.law is None else [TokenRanker(TOKENS, "Tokens, read exactly", model, model.law, resting=True)]
    return [ModelRanker(model), *second, *tokens, *signal_rankers(model.signals)]


def constants_of(model: CatalogueModel) -> list[LocalRanker]:
    """What an LLM once said of each item, whoever asks: beside its answers these cost nothing."""
    return [TitlePriorRanker(model.title_log_probs)] if len(model.title_log_probs) else []


def llm_signals(engine: LLMEngine, composer: PromptComposer, ways: Sequence[str]) -> list[Ranker]:
    """The LLM's, by the `ways` in which it is asked, ids of `WAYS`."""
    makers: dict[str, Callable[[], list[Ranker]]] = {
        CHOICES: lambda: [LLMRanker(CHOICES, "A-LLMRec", engine, composer)],
        TITLES: lambda: [TitleLikelihoodRanker(engine, composer), *constants_of(composer.model)],
        INJECTED: lambda: [InjectedTitleRanker(engine, composer)],
        ENCODER: lambda: [UserEncoderRanker(engine, composer)],
    }
    return [ranker for way in ways for ranker in makers[way]()]
