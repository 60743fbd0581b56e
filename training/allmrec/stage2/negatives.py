"""Stage 2's negatives: uniform, by popularity, and of what the backbone would retrieve.

Every negative is of one kind or another by chance, apart from the others, and it is known how likely each item is to
be drawn. A loss that takes the logarithm of that from the logits learns how likely an item is to be the next one,
whatever it was sampled among: without it, what is often drawn would be learned to lose (Bengio and Senecal 2008).

Axes: B examples, C candidates, K retrieved items.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pydantic import Field, model_validator

from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import PADDING_ITEM
from models.config import Config
from training.backbones.negatives import POPULARITY_POWER
from training.data.negatives import NegativeSampler
from training.data.splits import SequenceSplit

Retrieve = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of users (B,), rows of the split, and the lengths (B,) of their histories: (B, K) items, padding last."""
MOST_SCORES = 1 << 22
"""Of users and items at a time: 16 MiB in fp32."""


class NegativeConfig(Config):
    """Of which kinds negatives are; those of neither are uniform.

    Attributes:
        popular: share drawn by interactions^0.75.
        retrieved: share drawn among the items that the backbone holds likeliest after the history.
        among: how many these are.
    """

    popular: float = Field(0.0, ge=0, lt=1)
    retrieved: float = Field(0.0, ge=0, lt=1)
    among: int = Field(100, gt=0)

    @model_validator(mode="after")
    def _some_uniform(self) -> NegativeConfig:
        if self.popular + self.retrieved >= 1:
            raise ValueError("popular and retrieved negatives leave none that are uniform: let them sum to less than 1")
        return self

    @property
    def uniform(self) -> bool:
        """Whether all are."""
        return not self.popular and not self.retrieved


class Negatives:
    """Draws candidates beside the targets.

    Args:
        split: whose users' training items are never negatives.
        known: (N+1,) bool: the items that may be negatives.
        config: of which kinds.
        retrieve: what the backbone holds likeliest; the target may be of it. Without it there are no retrieved ones.
    """

    def __init__(
        self, split: SequenceSplit, known: np.ndarray, config: NegativeConfig, retrieve: Retrieve | None = None
    ) -> None:
        self._config, self._retrieve = config, retrieve
        population = np.flatnonzero(known)
        self._sampler = NegativeSampler(split.train, population)
        popular = np.zeros(len(known))
        popular[population] = np.maximum(split.catalogue.interactions[population], 1) ** POPULARITY_POWER
        self._popular = popular / popular.sum()
        self._cumulative = np.cumsum(self._popular)
        self._uniform = 1.0 / len(population)

    def beside(
        self, targets: np.ndarray, users: np.ndarray, ends: np.ndarray, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidates (B, C), the target first, padding last; and the logarithms of how likely each is drawn (B, C).

        Args:
            targets: (B,) what comes next, of the users' training items.
            users: (B,) rows of the split.
            ends: (B,) lengths of their histories.
            count: C - 1.
            rng: the source of randomness.
        """
        config = self._config
        if config.uniform:
            items = np.column_stack([targets, self._sampler.sample_distinct(users, count, rng)])
            return items, np.zeros(items.shape)
        retrieved_B_K = self._retrieved(users, ends)
        sizes_B = (retrieved_B_K != PADDING_ITEM).sum(axis=1)
        kinds = rng.random((len(users), count))

        def propose(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            kind = kinds[rows, columns]
            by_popularity = np.searchsorted(self._cumulative, rng.random(len(rows)), side="right")
            of_retrieved = retrieved_B_K[rows, (rng.random(len(rows)) * sizes_B[rows]).astype(np.int64)]
            uniform = self._sampler.uniform(len(rows), rng)
            drawn = np.where(kind < config.popular, np.minimum(by_popularity, len(self._popular) - 1), uniform)
            return np.where(kind >= 1.0 - config.retrieved, of_retrieved, drawn)

        items = np.column_stack([targets, self._sampler.sample_distinct(users, count, rng, propose)])
        return items, self._log_odds(items, retrieved_B_K, sizes_B)

    def _retrieved(self, users: np.ndarray, ends: np.ndarray) -> np.ndarray:
        if not self._config.retrieved or self._retrieve is None:
            return np.full((len(users), 1), PADDING_ITEM, dtype=np.int64)
        return self._retrieve(users, ends)

    def _log_odds(self, items_B_C: np.ndarray, retrieved_B_K: np.ndarray, sizes_B: np.ndarray) -> np.ndarray:
        popular, retrieved = self._config.popular, self._config.retrieved
        found = [np.isin(items, best) for items, best in zip(items_B_C, retrieved_B_K, strict=True)]
        found_B_C = np.asarray(found).reshape(items_B_C.shape)
        odds_B_C = (1.0 - popular - retrieved) * self._uniform + popular * self._popular[items_B_C]
        odds_B_C += retrieved * found_B_C / np.maximum(sizes_B, 1)[:, None]
        return np.asarray(np.where(items_B_C == PADDING_ITEM, 0.0, np.log(odds_B_C)))


def best_of(model: CatalogueModel, split: SequenceSplit, known: np.ndarray, count: int) -> Retrieve:
    """What `model` holds likeliest after a history: at most `count` items that the user does not have in training.

    What comes next is among them if it is likely enough; nothing else of the user's training items ever is.

    Args:
        model: gives x_u and E.
        split: the data.
        known: (N+1,) bool: the items to be found.
        count: K.
    """
    population = np.flatnonzero(known)
    places = np.zeros(len(known), dtype=np.int64)
    places[population] = np.arange(len(population))
    vectors_P_D = model.cf_vectors[torch.from_numpy(population).to(model.cf_vectors.device)]
    count = min(count, len(population))

    def retrieve(users: np.ndarray, ends: np.ndarray) -> np.ndarray:
        rows = max(1, MOST_SCORES // len(population))
        parts = [part(users[at : at + rows], ends[at : at + rows]) for at in range(0, len(users), rows)]
        return np.concatenate([np.zeros((0, count), dtype=np.int64), *parts])

    def part(users: np.ndarray, ends: np.ndarray) -> np.ndarray:
        sequences = [split.train[user] for user in users]
        histories = [items[:end] for items, end in zip(sequences, ends, strict=True)]
        vectors_B_D = model.user_vectors(histories, [split.user_ids[user] for user in users])
        scores_B_P = vectors_B_D @ vectors_P_D.T
        for row, (items, end) in enumerate(zip(sequences, ends, strict=True)):
            others = items[(items != items[end]) & known[items]]
            scores_B_P[row, torch.from_numpy(places[others]).to(scores_B_P.device)] = -torch.inf
        best = scores_B_P.topk(count, dim=1)
        found = population[best.indices.cpu().numpy()]
        return np.where(best.values.isneginf().cpu().numpy(), PADDING_ITEM, found)

    return retrieve
