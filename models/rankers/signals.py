"""Signals without an LLM: what a history says of an item by text, words and sequence, and popularity.


Axes: E users, C candidates, T items of a history, Q text size, X words of a title.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from models.bundle.signal_tables import HALF_LIVES, NO_WORD, SignalTables
from models.rankers.base import Audience, LocalRanker, mask_padding

LATEST = 10
"""History items that texts are compared with."""
LATEST_FOLLOWED = 30
"""History items that what followed is looked up of."""
RECENCY = 0.85
"""What an item counts less for every one after it, where order matters."""

SPREAD = 20
"""So many times a count of one, the logarithm is steep where counts are rare and flat where they are not."""

UserSignal = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of a history (T,), oldest first, and candidates (C,): their scores (C,)."""


class SignalRanker(LocalRanker):
    """A score of history and candidate.

    Args:
        id: of the ranker.
        title: for people.
        signal: scores one user's candidates.
    """

    ranks_catalogue = True

    def __init__(self, id: str, title: str, signal: UserSignal) -> None:  # noqa: A002
        self.id, self.title = id, title
        self._signal = signal

    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        scores_E_C = np.zeros(candidates_E_C.shape)
        for row, history in enumerate(users.histories):
            scores_E_C[row] = self._signal(history, candidates_E_C[row])
        return mask_padding(scores_E_C, candidates_E_C)


def signal_rankers(tables: SignalTables) -> list[SignalRanker]:
    """All signals, computed from `tables`."""
    text, words, sequence = TextSimilarity(tables), WordOverlap(tables), Followed(tables)
    at_least_once = np.maximum(tables.popularity, np.log(2.0))  # nothing tells an unseen item from one met once
    return [
        SignalRanker("item_popularity", "Popularity of the item", lambda _, items: at_least_once[items]),
        SignalRanker(
            "neighbour_popularity", "Popularity of its like", lambda _, items: tables.neighbour_popularity[items]
        ),
        SignalRanker("similarity_mean", "Text, mean of history", text.mean),
        SignalRanker("similarity_last", "Text, last item", text.last),
        SignalRanker("similarity_best", "Text, best match", text.best),
        SignalRanker("words_best", "Words, best match", words.best),
        SignalRanker("followed", "What followed what", sequence.direct),
        SignalRanker("followed_like", "What followed its like", sequence.by_neighbours),
        SignalRanker("followed_chance", "Chance to follow its like", sequence.chance),
        *aged_popularities(tables),
    ]


def aged_popularities(tables: SignalTables) -> list[SignalRanker]:
    """Popularity of late, by each of `HALF_LIVES`; none where nothing is known of when.

    Less than one interaction counts as one: again nothing tells an unseen item.
    """
    if tables.aged is None:
        return []

    def ranker(name: str, days: int, aged_N: np.ndarray) -> SignalRanker:
        logs_N = np.log1p(np.maximum(aged_N, 1.0))
        return SignalRanker(name, f"Popularity of {days} days", lambda _, items: logs_N[items])

    return [ranker(*half_life, aged_N) for half_life, aged_N in zip(HALF_LIVES.items(), tables.aged.T, strict=True)]


class TextSimilarity:
    """Cosines of text embeddings; 0 without a history."""

    def __init__(self, tables: SignalTables) -> None:
        self._vectors = tables.text_vectors

    def mean(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """With the history's mean."""
        return self._cosines(history, items).mean(axis=0) if len(history) else np.zeros(len(items))

    def last(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """With its latest item."""
        return self.mean(history[-1:], items)

    def best(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """With its nearest item."""
        return self._cosines(history, items).max(axis=0) if len(history) else np.zeros(len(items))

    def _cosines(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(T, C)."""
        return self._of(history[-LATEST:]) @ self._of(items).T

    def _of(self, items: np.ndarray) -> np.ndarray:
        """(C, Q) in float32; torch converts several times as fast as numpy."""
        return torch.from_numpy(self._vectors[items]).float().numpy()


class WordOverlap:
    """TF-IDF cosines of titles: they tell series, sizes and brands apart, where embeddings see much the same."""

    def __init__(self, tables: SignalTables) -> None:
        self._words, self._weights = tables.words, tables.word_weights
        self._vocabulary = int(tables.words.max(initial=0)) + 1

    def best(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(C,) the cosine with the nearest title of the history; 0 without one."""
        if not len(history):
            return np.zeros(len(items))
        distinct = np.unique(history[-LATEST:])
        by_word_T_V = np.zeros((len(distinct), self._vocabulary), dtype=np.float32)
        rows = np.arange(len(distinct))[:, None]
        by_word_T_V[rows, self._words[distinct]] = self._weights[distinct]
        by_word_T_V[:, NO_WORD] = 0.0
        matches_T_C_X = by_word_T_V[:, self._words[items]] * self._weights[items].astype(np.float32)
        return matches_T_C_X.sum(axis=2).max(axis=0)


class Followed:
    """How often an item came near those of the history in training, later ones counting more (item-to-item counts).

    `by_neighbours` lets items stand in for those of like text, so that items without interactions have scores too.
    """

    def __init__(self, tables: SignalTables) -> None:
        self._tables, self._weights = tables, tables.neighbour_weights.astype(np.float32)
        self._items = len(tables.popularity)
        self._own_exposure = np.exp(tables.popularity) + 1.0

    def direct(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(C,) by the items themselves."""
        latest = history[-LATEST_FOLLOWED:]
        near_N = self._near(latest, _recency(latest) / np.sqrt(self._own_exposure[latest]))
        return np.log1p(SPREAD * near_N[items] / np.sqrt(self._own_exposure[items]))

    def by_neighbours(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(C,) by the items and those of like text, on both sides."""
        exposure = self._tables.exposure
        found_C = self._found(history, items, 1.0 / np.sqrt(exposure))
        return np.log1p(SPREAD * found_C / np.sqrt(exposure[items]))

    def chance(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(C,) the same as a share of all that followed: well known items are likelier."""
        return np.log1p(SPREAD * self._found(history, items, 1.0 / self._tables.exposure))

    def near_like(self, history: np.ndarray) -> np.ndarray:
        """(N+1,) how often each item came near those of the history and their like, for how often it is met at all."""
        shares_N = 1.0 / np.sqrt(self._tables.exposure)
        return self._near_like(history, shares_N) * shares_N

    def _found(self, history: np.ndarray, items: np.ndarray, shares_N: np.ndarray) -> np.ndarray:
        """(C,) what came near the history's items and their like, each counted by its share and recency."""
        near_N, tables = self._near_like(history, shares_N), self._tables
        return (near_N[tables.neighbours[items]] * self._weights[items]).sum(axis=1)

    def _near_like(self, history: np.ndarray, shares_N: np.ndarray) -> np.ndarray:
        """(N+1,) what came near the history's items and their like."""
        tables, latest = self._tables, history[-LATEST_FOLLOWED:]
        weights_T = _recency(latest) * shares_N[latest]
        stand_ins = tables.neighbours[latest].ravel()
        return self._near(stand_ins, (self._weights[latest] * weights_T[:, None]).ravel())

    def _near(self, items: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N+1,) what came near `items`, each counted by its weight."""
        starts, ends = self._tables.followed_starts[items], self._tables.followed_starts[items + 1]
        lengths = ends - starts
        places = np.repeat(starts - np.concatenate([[0], lengths.cumsum()[:-1]]), lengths) + np.arange(lengths.sum())
        counts = self._tables.followed_counts[places] * np.repeat(weights, lengths)
        return np.bincount(self._tables.followed_items[places], counts, minlength=self._items)


def _recency(history: np.ndarray) -> np.ndarray:
    """(T,) 1 for the latest item, less for every one before it."""
    return RECENCY ** np.arange(len(history) - 1, -1, -1)
