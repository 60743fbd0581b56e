"""Training prompts: synthetic titles and preferences in exactly the prompts that the product builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from models.domain import DOMAINS
from models.llm.law import in_series
from models.llm.token_interface import TokenInterface
from models.prompts.layout import PromptLayout, Slot
from models.prompts.template import PromptConfig, PromptTemplate
from models.prompts.titles import TitleTokens, encode_plain
from models.scoring.choices import ChoiceTrie
from training.pretraining.example import Example
from training.pretraining.mixture import GENRE_SHARPNESS, MAX_HISTORY, MAX_TITLE_TOKENS, Mixture
from training.pretraining.preferences import Preferences, draw_preferences
from training.pretraining.title_sampler import TitleSampler
from training.pretraining.words import GENRES


class PromptFactory:
    """Draws examples.

    Args:
        tokenizer: the embedded LLM's.
        interface: the convention for injected tokens.
        context_length: of the LLM.
        seed: of the stock of titles.
        titles: size of the stock of grammar titles.
    """

    def __init__(
        self, tokenizer: Any, interface: TokenInterface, context_length: int, seed: int = 0, titles: int = 20_000
    ) -> None:
        self._coupling = interface.coupling
        self._slot_types = interface.slot_types.double().numpy()
        user_basis = [interface.user_basis, interface.series_axis[None]]
        item_basis = [interface.item_basis, interface.similarity_basis, interface.popularity_axis[None]]
        self._user_basis, self._item_basis = (torch.cat(basis).double().numpy() for basis in (user_basis, item_basis))
        self._sizes = len(interface.item_basis), len(interface.similarity_basis)
        self.titles = TitleSampler(tokenizer, seed, titles)
        self._genres = TitleTokens(tokenizer, GENRES, MAX_TITLE_TOKENS)
        self._templates = [
            PromptTemplate(
                tokenizer,
                PromptConfig(domain=domain, history_items=MAX_HISTORY, max_title_tokens=MAX_TITLE_TOKENS),
                context_length,
            )
            for domain in DOMAINS.values()
        ]
        self._open, self._close, self._and, self._stop = encode_plain(tokenizer, [' "', '"', " and", "."])
        self._end = [int(tokenizer.eos_token_id)]

    def draw(self, rng: np.random.Generator, mixture: Mixture) -> Example:
        """One example of `mixture`."""
        kind = rng.random()
        if kind < mixture.explanations:
            return self._explanation(rng, mixture)
        genre = kind < mixture.explanations + mixture.genres
        candidates, history = _candidates(rng, mixture), _history(rng, mixture)
        template = self._templates[rng.integers(len(self._templates))]
        titles = self.titles.draw(rng, mixture, history, candidates)
        history_titles, candidate_titles = titles[:history], titles[history:]
        if genre:
            candidate_titles = self._genres.of(rng.choice(len(self._genres), candidates, replace=False))
            layout = template.favorite_genre(history_titles, candidate_titles)
        else:
            layout = template.recommend(history_titles, candidate_titles)
        sharpness = mixture.sharpness * (GENRE_SHARPNESS if genre else 1.0)
        series = in_series(history_titles, candidate_titles)
        preferences = draw_preferences(rng, *self._sizes, series, history, self._coupling, sharpness)
        if mixture.answers and rng.random() < mixture.answers:
            answer = layout.choices[rng.choice(candidates, p=np.exp(preferences.log_probs))]
            return self._written([*answer, *self._close, *self._stop, *self._end], layout, preferences, "answers")
        trie = ChoiceTrie(layout.choices, template.end_token)
        return Example(layout, trie, preferences, self._soft_tokens(layout, preferences))

    def _explanation(self, rng: np.random.Generator, mixture: Mixture) -> Example:
        """A prompt that ends in a sentence that names all of its one to three titles, as the service's do."""
        template = self._templates[rng.integers(len(self._templates))]
        history_titles = self.titles.draw(rng, mixture, 0, int(rng.integers(1, 4)))
        genre = self._genres[int(rng.integers(len(self._genres)))]
        layout = template.explanation(history_titles, genre)
        sentence = self.sentence([list(choice) for choice in history_titles])
        # Two candidates that nobody asks about: a draw has a user and a history, which the prompt shows.
        preferences = draw_preferences(rng, *self._sizes, np.zeros(2), len(history_titles), self._coupling)
        return self._written(sentence, layout, preferences, "explanations")

    def _written(
        self, text: list[int], layout: PromptLayout, preferences: Preferences, kind: Literal["explanations", "answers"]
    ) -> Example:
        """The prompt that `layout` begins and `text` ends, with nothing to choose."""
        ended = replace(layout, token_ids=np.concatenate([layout.token_ids, np.asarray(text, dtype=np.int64)]))
        no_choice = ChoiceTrie(layout.choices[:1], self._close[-1])
        return Example(ended, no_choice, preferences, self._soft_tokens(layout, preferences), kind, len(text))

    def sentence(self, titles: Sequence[list[int]]) -> list[int]:
        """` "A" and "B" and "C".` and the end of text, for titles in the order shown.

        No commas: after a title, the LM has to know only whether there is another one.
        """
        tokens: list[int] = []
        for number, title in enumerate(titles):
            if number:
                tokens += self._and
            tokens += [*self._open, *title, *self._close]
        return [*tokens, *self._stop, *self._end]

    def _soft_tokens(self, layout: PromptLayout, preferences: Preferences) -> torch.Tensor:
        """(S, d_tok) tokens by the interface, in double precision until the end: drawn once, read by every test."""
        kinds, ordinals = layout.slot_kinds, layout.slot_ordinals
        tokens_S_H = self._slot_types[kinds]
        tokens_S_H[kinds == Slot.USER] += preferences.user @ self._user_basis
        for kind, items in ((Slot.HISTORY, preferences.history), (Slot.CANDIDATE, preferences.candidates)):
            mask = kinds == kind
            tokens_S_H[mask] += items[ordinals[mask]] @ self._item_basis
        return torch.from_numpy(tokens_S_H).float()


def _candidates(rng: np.random.Generator, mixture: Mixture) -> int:
    """How many candidates a prompt has."""
    least, most = mixture.candidates
    drawn = int(rng.integers(least, most + 1))
    return 20 if least <= 20 <= most and rng.random() < mixture.twenty else drawn


def _history(rng: np.random.Generator, mixture: Mixture) -> int:
    """How many history items: none in a fifth, mostly up to the product's 10, of any number in one of seven."""
    history = 0 if rng.random() < 0.2 else int(rng.integers(0, min(mixture.history, 10) + 1))
    return int(rng.integers(0, mixture.history + 1)) if rng.random() < 0.15 else history
