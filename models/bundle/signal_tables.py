"""What signals are computed from: the items' texts, words and neighbours, and what followed what in training.

Axes: N items, Q text size, X words of a title, k text neighbours, P pairs of items that followed each other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

NO_WORD = 0
HALF_LIVES = {"popularity_month": 30, "popularity_season": 91, "popularity_year": 365}
"""By signal the days after which an interaction counts half; validation items say which of them a blend takes."""


@dataclass(frozen=True)
class SignalTables:
    """Row 0 of every table is the padding item's.

    Attributes:
        text_vectors: (N+1, Q) float16, unit length: embeddings of the items' texts, words beside sentences.
        words: (N+1, X) int32 numbers of the distinct words of each title, `NO_WORD` where it has fewer.
        word_weights: (N+1, X) float16 TF-IDF weights of these words, of unit length for each title.
        neighbours: (N+1, k) int32 the items whose texts are nearest, itself first.
        neighbour_weights: (N+1, k) float16, how near.
        popularity: (N+1,) float32 log(1 + training interactions).
        neighbour_popularity: (N+1,) float32 log(1 + the neighbours' weighted interactions).
        followed_starts: (N+2,) int64 where each item's pairs begin.
        followed_items: (P,) int32 items that were near each item in users' sequences.
        followed_counts: (P,) float32 how often, discounted by distance.
        exposure: (N+1,) float32 how often each item or its neighbours could have been followed, plus a prior.
        aged: (N+1, H) float32 training interactions, discounted by their age at the last of them with each of
            `HALF_LIVES`; None where they have no dates, or where none of it is weighed.
    """

    text_vectors: np.ndarray
    words: np.ndarray
    word_weights: np.ndarray
    neighbours: np.ndarray
    neighbour_weights: np.ndarray
    popularity: np.ndarray
    neighbour_popularity: np.ndarray
    followed_starts: np.ndarray
    followed_items: np.ndarray
    followed_counts: np.ndarray
    exposure: np.ndarray
    aged: np.ndarray | None = None

    def with_texts_of(self, order: np.ndarray) -> SignalTables:
        """The same interactions with the texts of other items, in `order` (N+1,)."""
        places = np.argsort(order)
        neighbours = places[self.neighbours[order]].astype(np.int32)
        weights = self.neighbour_weights[order]
        near_counts = (np.expm1(self.popularity)[neighbours[:, 1:]] * weights[:, 1:]).sum(axis=1)
        own_near = np.expm1(self.neighbour_popularity)
        return replace(
            self,
            text_vectors=self.text_vectors[order],
            words=self.words[order],
            word_weights=self.word_weights[order],
            neighbours=neighbours,
            neighbour_weights=weights,
            neighbour_popularity=np.log1p(near_counts).astype(np.float32),
            exposure=(self.exposure - own_near + near_counts).astype(np.float32),
        )

    def save(self, path: Path) -> None:
        """Write all tables as one safetensors file."""
        tables = {field.name: getattr(self, field.name) for field in fields(self)}
        save_file({name: torch.from_numpy(table) for name, table in tables.items() if table is not None}, path)

    @classmethod
    def load(cls, path: Path) -> SignalTables:
        """What `save` wrote."""
        return cls(**{name: tensor.numpy() for name, tensor in load_file(path).items()})
