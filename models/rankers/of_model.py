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
from models.rankers.collaborative import CollaborativeRanker, user_vectors
from models.rankers.llm import LLMRanker
from models.rankers.series import TitleSeries
from models.rankers.signals import SignalRanker, signal_rankers
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

STAGE1_ITEM, STAGE1_TEXT = "stage1_item", "stage1_text"
"""What stage 1 decodes into CF space: of items' joint embeddings, and of what their texts alone say."""

TITLE_PRIOR = TitlePriorRanker.id
"""What is taken from how likely a title is after the history, by a share that the blend fits: of no use alone."""

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


class ModelRanker(CollaborativeRanker):
    """The inner products of x_u, as the bundle has it, with a table of items in CF space.

    Args:
        id: of the ranker.
        title: for people.
        model: of the catalogue.
        item_vectors: (N+1, d); `model.cf_vectors`, by which retrieval ranks, or what stage 1 decodes in their place.
    """

    def __init__(self, id: str, title: str, model: CatalogueModel, item_vectors: torch.Tensor) -> None:  # noqa: A002
        super().__init__(id, title, model.backbone, item_vectors)
        self._model = model

    def _represent(self, users: Audience) -> torch.Tensor:
        return user_vectors(self._model, users)


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
    series = SignalRanker("title_series", "Titles of one series", TitleSeries(model.catalogue.titles).rarest)
    return [_collaborative(model), *second, *_stage1(model), *tokens, *signal_rankers(model.signals), series]


def _collaborative(model: CatalogueModel) -> LocalRanker:
    return ModelRanker("cf", f"CF ({type(model.backbone).__name__})", model, model.cf_vectors)


def _stage1(model: CatalogueModel) -> list[LocalRanker]:
    """Stage 1's encoders, of which the model has what they decode."""
    tables = (
        (STAGE1_ITEM, "Stage 1 (item encoder)", model.decoded_item),
        (STAGE1_TEXT, "Stage 1 (text encoder)", model.decoded_text),
    )
    return [ModelRanker(name, title, model, table) for name, title, table in tables if table is not None]


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
