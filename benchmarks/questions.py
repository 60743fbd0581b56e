"""What the benchmarks ask: real prompts over a bundle's users and items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.alignment.projection import TokenProjector
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.store import load_bundle
from models.composer import PromptComposer, Question
from models.histories import UserHistories
from models.llm.families import token_size_of
from models.llm.loading import load_config, load_tokenizer
from models.prompts.titles import TitleTokens


@dataclass(frozen=True)
class Asked:
    """One question, as it is put to an engine and to the service.

    Attributes:
        question: prompt and choices.
        titles: what is ranked, as it stands in the prompt.
        body: the same as a `POST /recommend`.
    """

    question: Question
    titles: list[str]
    body: dict[str, Any]


class Questionnaire:
    """Random questions about a bundle.

    Args:
        bundle: a bundle or bundle home.
        llm: the LLM whose tokenizer and context the prompts are made for.
    """

    def __init__(self, bundle: Path, llm: str) -> None:
        loaded = load_bundle(bundle)
        self._model = _fitting(loaded.model, llm)
        self._max_title_tokens = loaded.manifest.prompt.max_title_tokens
        self._tokenizer: Any = load_tokenizer(llm)
        context = int(load_config(llm).max_position_embeddings)
        self._composer = PromptComposer(self._model, loaded.manifest.prompt, self._tokenizer, context)

    def users(self, count: int, seed: int) -> list[str]:
        """`count` users, or all if there are fewer."""
        return sample_users(self._model.histories, count, seed)

    def ask(self, count: int, candidates: int, seed: int) -> list[Asked]:
        """`count` questions: the longer half of the users, each with `candidates` random items to rank."""
        asked = []
        with torch.inference_mode():
            for user_id, ranked in self._drawn(count, candidates, seed):
                history = self._model.histories.of(user_id).tolist()
                user_vector = self._model.user_vectors([history], [user_id])[0]
                question = self._composer.recommend(user_vector, history, ranked)
                asked.append(Asked(question, self._shown(ranked), self._body(user_id, ranked)))
        return asked

    def bodies(self, count: int, candidates: int, seed: int) -> list[dict[str, Any]]:
        """What `ask` would put to the service, without composing prompts."""
        return [self._body(user_id, ranked) for user_id, ranked in self._drawn(count, candidates, seed)]

    def _drawn(self, count: int, candidates: int, seed: int) -> Iterator[tuple[str, list[int]]]:
        rng = np.random.default_rng(seed)
        histories = self._model.histories
        users = sorted(histories.user_ids(), key=lambda user_id: -len(histories.of(user_id)))
        users = users[: max(1, len(users) // 2)]
        for row in rng.integers(len(users), size=count):
            yield users[row], (1 + rng.permutation(len(self._model.catalogue))[:candidates]).tolist()

    def _body(self, user_id: str, ranked: Sequence[int]) -> dict[str, Any]:
        item_ids = self._model.catalogue.item_ids
        return {"user_id": user_id, "candidates": [item_ids[item] for item in ranked]}

    def _shown(self, items: Sequence[int]) -> list[str]:
        titles = [self._model.catalogue.titles[item] for item in items]
        tokens = TitleTokens(self._tokenizer, titles, self._max_title_tokens)
        return [str(self._tokenizer.decode(tokens[row])) for row in range(len(tokens))]


def _fitting(model: CatalogueModel, llm: str) -> CatalogueModel:
    """The model, with fresh projections if the LLM's tokens are of another size: they say nothing, and cost as much."""
    size, given = token_size_of(load_config(llm)), model.projector
    if given.token_size == size:
        return model
    fresh = TokenProjector(model.cf_vectors.shape[1], model.joint_item.shape[1], size)
    return replace(model, projector=fresh.eval().requires_grad_(False))


def sample_users(histories: UserHistories, count: int, seed: int) -> list[str]:
    """`count` users, or all if there are fewer."""
    user_ids = sorted(histories.user_ids())
    chosen = np.random.default_rng(seed).permutation(len(user_ids))[:count]
    return [user_ids[row] for row in chosen]
