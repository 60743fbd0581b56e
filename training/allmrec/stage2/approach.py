"""How stage 2 approaches an LLM: by its token interface, or, where it has none, as in the paper.

`approach_of` is the one place that looks whether there is an interface.

Axes: U users, N items, D CF size, E validation users, C candidates.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from models.bundle.catalogue_model import CatalogueModel
from models.composer import PromptComposer
from models.llm.forward import embed_tokens
from models.llm.law import TokenLaw, series_table
from models.llm.loading import LanguageModel
from models.llm.token_interface import TokenInterface
from models.prompts.titles import TitleTokens
from models.rankers.base import Ranker
from models.rankers.collaborative import candidate_logits
from models.rankers.tokens import TokenRanker
from training.allmrec.genres import GenreReader, fit_genres
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.stage2.examples import ExampleSampler
from training.allmrec.stage2.inputs import Stage2Inputs
from training.allmrec.stage2.rehearsal import rehearse
from training.allmrec.stage2.teachers import Teacher, collaborative_teacher, token_teacher
from training.allmrec.stage2.warm_start import (
    Similarities,
    WarmStart,
    fit_coordinates,
    fit_history_weights,
    fit_similarities,
    history_similarity,
    plain_start,
    warm_start,
)
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.runs.context import RunContext
from training.runs.loop import Outcome

WARM_USERS = 20_000
WEIGHT_USERS = 5_000
EMBEDDINGS = 4_096
"""Whose length is measured; of all it could fill the memory twice."""


class Approach(Protocol):
    """What depends on whether an LLM was taught to read injected tokens."""

    def start(self, inputs: Stage2Inputs, config: Stage2Config, temperature: float) -> dict[str, float]:
        """Initialise the projector of `inputs.model`; returns metrics."""

    def teacher(self, inputs: Stage2Inputs, titles: TitleTokens, temperature: float) -> Teacher:
        """Who gives the distributions for distillation, once the projector is initialised."""

    def rehearse(
        self,
        told: Stage2Inputs,
        composer: PromptComposer,
        sampler: ExampleSampler,
        config: Stage2Config,
        run: RunContext,
        temperature: float,
    ) -> Outcome:
        """Train the projector of `told.model` without the LLM, where that can be; returns how it went."""

    def genres(self, inputs: Stage2Inputs, model: CatalogueModel, config: Stage2Config) -> torch.Tensor:
        """(G, 2d') what the LLM is told of each genre, for the trained `model`."""

    def readers(self, composer: PromptComposer) -> list[Ranker]:
        """Rankers that read the injected tokens exactly."""

    def genre_reader(self, model: CatalogueModel) -> GenreReader | None:
        """What reads the tokens of a genre prompt exactly, if anything can."""


def approach_of(llm: LanguageModel) -> Approach:
    """The approach to `llm`."""
    return PlainApproach() if llm.interface is None else InterfaceApproach(llm.interface)


class PlainApproach:
    """As in the paper: projections from scratch, of tokens as long as the LLM's own; the CF backbone can teach."""

    def start(self, inputs: Stage2Inputs, config: Stage2Config, temperature: float) -> dict[str, float]:  # noqa: ARG002
        """See `Approach.start`."""
        model = inputs.model
        embeddings = _usual_embeddings(inputs.llm)
        plain_start(model.projector, embeddings, sample_users(inputs, config.seed), model.joint_item[_trained(model)])
        return {}

    def teacher(self, inputs: Stage2Inputs, titles: TitleTokens, temperature: float) -> Teacher:  # noqa: ARG002
        """See `Approach.teacher`."""
        return collaborative_teacher(inputs.model, inputs.texts, temperature)

    def rehearse(self, *_: object) -> Outcome:
        """Nothing says what the LLM would answer."""
        return Outcome()

    def genres(self, inputs: Stage2Inputs, model: CatalogueModel, config: Stage2Config) -> torch.Tensor:  # noqa: ARG002
        """The mean of each genre's items."""
        return model.joint_genre

    def readers(self, composer: PromptComposer) -> list[Ranker]:  # noqa: ARG002
        """None: nothing says how tokens are to be read."""
        return []

    def genre_reader(self, model: CatalogueModel) -> GenreReader | None:  # noqa: ARG002
        """None, likewise."""
        return None


class InterfaceApproach:
    """The projections begin at the tokens that the LLM reads already, and those tokens, read exactly, can teach.

    Args:
        interface: the LLM's.
    """

    def __init__(self, interface: TokenInterface) -> None:
        self._interface = interface

    def start(self, inputs: Stage2Inputs, config: Stage2Config, temperature: float) -> dict[str, float]:
        """See `Approach.start`."""
        model, texts = inputs.model, inputs.texts
        users_U_D = sample_users(inputs, config.seed)
        trained = _trained(model)
        interface = self._interface.to(users_U_D.device)
        coordinates = fit_coordinates(users_U_D, model.cf_vectors[trained], interface, temperature, config.seed)
        similarities = fit_similarities(texts.vectors[trained], interface)
        similarity, series = self._history_weights(inputs, similarities, config, temperature)
        target = WarmStart(interface, coordinates, similarities.scaled(similarity), series)
        tables = [
            (model.joint_item[1:], model.cf_vectors[1:], texts.vectors[1:]),
            (model.joint_text[1:], texts.decoded[1:], texts.vectors[1:]),
        ]
        errors = warm_start(model.projector, target, users_U_D, tables, config.warm_start, config.seed)
        return {"similarity_weight": similarity, "series_weight": series, **errors}

    def teacher(self, inputs: Stage2Inputs, titles: TitleTokens, temperature: float) -> Teacher:  # noqa: ARG002
        """See `Approach.teacher`."""
        return token_teacher(inputs.model, titles, self._interface)

    def rehearse(
        self,
        told: Stage2Inputs,
        composer: PromptComposer,
        sampler: ExampleSampler,
        config: Stage2Config,
        run: RunContext,
        temperature: float,
    ) -> Outcome:
        """By the law: see `training.allmrec.stage2.rehearsal`."""
        teach = self.teacher(told, composer.titles, temperature)
        return rehearse(told, composer, self._interface, teach, sampler, config, run)

    def genres(self, inputs: Stage2Inputs, model: CatalogueModel, config: Stage2Config) -> torch.Tensor:
        """What makes the law name users' favourites; see `training.allmrec.genres`."""
        return fit_genres(inputs.split, model, self._interface, inputs.prompt, config.genres)

    def readers(self, composer: PromptComposer) -> list[Ranker]:
        """See `Approach.readers`."""
        law = TokenLaw.of(self._interface, composer.titles, composer.template.config.history_items)
        return [
            TokenRanker("tokens", "Tokens, read exactly", composer.model, law, resting=True),
            TokenRanker("tokens_text", "Tokens (text encoder)", composer.model, law, text_only=True, resting=True),
        ]

    def genre_reader(self, model: CatalogueModel) -> GenreReader | None:
        """See `Approach.genre_reader`."""
        return GenreReader(model, self._interface)

    def _history_weights(
        self, inputs: Stage2Inputs, similarities: Similarities, config: Stage2Config, temperature: float
    ) -> tuple[float, float]:
        """The weights of similarity and series beside the tokens' CF logits that predict the validation items best.

        Users who met theirs before are left out: no negative is an item of the history, so these would be recognised
        by it.
        """
        if config.chosen is not None:
            return config.chosen.similarity_weight, config.chosen.series_weight
        if not config.warm_start.similarity and not config.warm_start.series:
            return 0.0, 0.0
        held_out = HeldOut.of(inputs.split, Holdout.VALIDATION, config.seed, WEIGHT_USERS)
        held_out = held_out.take(held_out.groups["new"])
        if not len(held_out):
            return 0.0, 0.0
        model, texts, items_E_C = inputs.model, inputs.texts, held_out.candidates.items
        users_E_D = model.user_vectors(held_out.users.histories, held_out.users.user_ids)
        shown = [inputs.prompt.shown(history) for history in held_out.users.histories]
        cf_logits = [
            candidate_logits(users_E_D, vectors, items_E_C) / temperature
            for vectors in (model.cf_vectors, texts.decoded)
        ]
        interface = self._interface.to(users_E_D.device)
        likeness_E_C = history_similarity(similarities, interface, texts.vectors, shown, items_E_C)
        titles = inputs.composer(model).titles
        return fit_history_weights(cf_logits, likeness_E_C, series_table(titles, shown, items_E_C), config.warm_start)


def sample_users(inputs: Stage2Inputs, seed: int) -> torch.Tensor:
    """x_u (U, D) of users at some point of their training sequence."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(inputs.split))[:WARM_USERS]
    sequences = (inputs.split.train[user] for user in chosen)
    histories = [items[: rng.integers(1, len(items) + 1)] for items in sequences]
    return inputs.model.user_vectors(histories, [inputs.split.user_ids[user] for user in chosen])


def _usual_embeddings(llm: LanguageModel) -> torch.Tensor:
    """(n, H) what stands for some tokens in the LLM's input: scaled, where its family scales them."""
    table = llm.model.get_input_embeddings().weight
    some = torch.linspace(0, len(table) - 1, min(len(table), EMBEDDINGS), device=table.device).long()
    return embed_tokens(llm.model, some)


def _trained(model: CatalogueModel) -> torch.Tensor:
    """The numbers of the items that the backbone was trained on."""
    return torch.from_numpy(np.flatnonzero(model.catalogue.trained)).to(model.cf_vectors.device)
