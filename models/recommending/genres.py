"""Favourite genres: the LLM's probabilities blended with what the history's own genres and its x_u say.

Axes: G genres, E users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from models.bundle.blend import Blend, GenreBlends
from models.catalogue import Catalogue
from models.composer import PromptComposer
from models.recommending.merge import softmax

UNSEEN_COUNT = 0.5
"""What a genre that the history does not have counts as: half an item, so that its logarithm is finite."""


def genre_members(catalogue: Catalogue) -> np.ndarray:
    """(N+1, G) 1 where an item has a genre, 0 elsewhere and at padding."""
    members_N_G = np.zeros((len(catalogue) + 1, len(catalogue.genres)))
    for genre, items in enumerate(catalogue.genres.values()):
        members_N_G[items, genre] = 1
    return members_N_G


class GenreSignals:
    """What can be said of a user's genres, each a score for every genre.

    Args:
        composer: of the catalogue.
    """

    LLM, COUNT, CF, RARITY = "genre_llm", "genre_count", "genre_cf", "genre_rarity"
    TITLES: ClassVar[dict[str, str]] = {
        LLM: "Genre, by the LLM",
        COUNT: "Genre, counted in the history",
        CF: "Genre, by CF",
        RARITY: "Genre, how rare",
    }
    LOCAL = (COUNT, CF, RARITY)

    def __init__(self, composer: PromptComposer) -> None:
        self._composer = composer
        self._members_N_G = genre_members(composer.model.catalogue)
        self._rarity_G = -np.log(np.maximum(self._members_N_G.sum(axis=0), 1.0))

    def of(self, user_vector: torch.Tensor, history: np.ndarray) -> dict[str, np.ndarray]:
        """By id of `LOCAL` the scores (G,), which need no LLM.

        Args:
            user_vector: (d,) x_u.
            history: item numbers, oldest first.
        """
        counts_G = self._members_N_G[history].sum(axis=0)
        return {
            self.COUNT: np.log(counts_G + UNSEEN_COUNT),
            self.CF: self._composer.genre_cf_scores(user_vector),
            self.RARITY: self._rarity_G,
        }


class GenreRanker:
    """Probabilities of a user's favourite genre.

    Args:
        composer: of the catalogue.
        blends: what each signal weighs; if not given, the LLM says it alone, and without it the mean CF logit of a
            genre's items.
    """

    def __init__(self, composer: PromptComposer, blends: GenreBlends | None) -> None:
        self._signals, self._blends = GenreSignals(composer), blends

    def probabilities(
        self, user_vector: torch.Tensor, history: np.ndarray, llm_log_probs: np.ndarray | None
    ) -> np.ndarray:
        """(G,) probabilities.

        Args:
            user_vector: (d,) x_u.
            history: item numbers, oldest first.
            llm_log_probs: (G,) what the LLM said; None to do without it.
        """
        scores = self._signals.of(user_vector, history)
        asked = llm_log_probs is not None
        if llm_log_probs is not None:
            scores[GenreSignals.LLM] = llm_log_probs
        if self._blends is None:
            return softmax(scores[GenreSignals.LLM if asked else GenreSignals.CF])
        return softmax(genre_logits(self._blends.llm if asked else self._blends.blend, scores))


def genre_logits(blend: Blend, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """(G,) logits of the genres by their scores (G,)."""
    rows: dict[str, np.ndarray] = {name: values[None] for name, values in scores.items()}
    nobody_1_G = np.zeros((1, len(next(iter(scores.values())))))
    return blend.logits(rows, nobody_1_G)[0]
