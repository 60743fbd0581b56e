"""Builds the tables of the signals from training interactions and item texts.

Axes: N items, Q text size, X words of a title, k text neighbours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy import sparse

from models.alignment.text_encoder import EMBEDDED
from models.alignment.words import words_of
from models.bundle.signal_tables import HALF_LIVES, NO_WORD, SignalTables
from models.config import Config
from training.data.sequences import Sequences
from training.data.splits import SequenceSplit

NEIGHBOUR_ROWS = 1024
PRIOR = 2.0
"""Interactions that every item is given, so that what was seen once is not taken for certain."""
DAY_SECONDS = 86_400


class SignalsConfig(Config):
    """How the tables are made.

    Attributes:
        text_encoder: "embedded", a hub name or a path of the sentence-transformers model by which texts are
            alike.
        max_text_tokens: longer texts are cut.
        neighbours: k, items of like text that stand in for an item.
        sharpness: a neighbour counts by its cosine to this power.
        window: how many steps apart two items of a sequence still count as near.
        discount: what a pair counts less for every step between.
        most_pairs: the most frequent pairs that are kept of an item.
        title_words: distinct words of a title that are kept, the most telling first.
        word_directions: of the words that stand beside sentence embeddings where texts are compared (ADR 15).
    """

    text_encoder: str = EMBEDDED
    max_text_tokens: int = Field(64, gt=2)
    neighbours: int = Field(20, ge=0)
    sharpness: float = Field(3.0, gt=0)
    window: int = Field(10, gt=0)
    discount: float = Field(0.85, gt=0, le=1)
    most_pairs: int = Field(200, gt=0)
    title_words: int = Field(32, gt=0)
    word_directions: int = Field(256, ge=0)


def build_signals(split: SequenceSplit, text_vectors: np.ndarray, config: SignalsConfig) -> SignalTables:
    """The tables for the items of `split`, from its training sequences alone.

    Args:
        split: the data.
        text_vectors: (N+1, Q) embeddings of the items' texts, with as many directions of words beside them as the
            config says.
        config: how.
    """
    vectors = text_vectors / np.maximum(np.linalg.norm(text_vectors, axis=1, keepdims=True), 1e-9)
    vectors[0] = 0.0
    words, word_weights = title_words(split.catalogue.titles, config.title_words)
    neighbours, neighbour_weights = text_neighbours(vectors, word_matrix(words, word_weights), config)
    counts = split.catalogue.interactions.astype(np.float32)
    near_counts = (counts[neighbours[:, 1:]] * neighbour_weights[:, 1:]).sum(axis=1)
    starts, followed, followed_counts = followed_pairs(split.train, len(counts), config)
    return SignalTables(
        text_vectors=vectors.astype(np.float16),
        words=words,
        word_weights=word_weights,
        neighbours=neighbours,
        neighbour_weights=neighbour_weights.astype(np.float16),
        popularity=np.log1p(counts),
        neighbour_popularity=np.log1p(near_counts).astype(np.float32),
        followed_starts=starts,
        followed_items=followed,
        followed_counts=followed_counts,
        exposure=(counts + near_counts + PRIOR).astype(np.float32),
        aged=aged_interactions(split),
    )


def aged_interactions(split: SequenceSplit) -> np.ndarray | None:
    """(N+1, H) training interactions as they count at the last of them, by `HALF_LIVES`; None without dates."""
    times = split.training_times
    if times is None:
        return None
    days, items = (times.max() - times) / DAY_SECONDS, Sequences.of(split.train).items
    counts = [np.bincount(items, 0.5 ** (days / half), len(split.catalogue) + 1) for half in HALF_LIVES.values()]
    return np.stack(counts, axis=1).astype(np.float32)


def title_words(titles: Sequence[str], most: int) -> tuple[np.ndarray, np.ndarray]:
    """(N+1, X) word numbers from 1 and their TF-IDF weights, of unit length a title; 0 where a title has fewer.

    Words of a single title tell nothing that two titles could share, and are left out.
    """
    counted = [Counter(words_of(title)) for title in titles]
    frequency = Counter(word for words in counted for word in words)
    numbers = {word: number for number, word in enumerate((w for w, n in frequency.items() if n > 1), start=1)}
    words = np.zeros((len(titles), most), dtype=np.int32)
    weights = np.zeros((len(titles), most), dtype=np.float16)
    for item, counts in enumerate(counted):
        told = {w: (1 + np.log(n)) * np.log(len(titles) / frequency[w]) for w, n in counts.items() if w in numbers}
        kept = sorted(told, key=lambda word: -told[word])[:most]
        length = float(np.sqrt(sum(value**2 for value in told.values()))) or 1.0
        words[item, : len(kept)] = [numbers[word] for word in kept]
        weights[item, : len(kept)] = [told[word] / length for word in kept]
    return words, weights


def word_matrix(words: np.ndarray, weights: np.ndarray) -> sparse.csr_matrix:
    """(N+1, V) TF-IDF weights by word number; column `NO_WORD` is empty."""
    rows = np.repeat(np.arange(len(words)), words.shape[1])
    values = np.where(words == NO_WORD, 0.0, weights.astype(np.float32)).ravel()
    return sparse.csr_matrix((values, (rows, words.ravel())), shape=(len(words), int(words.max(initial=0)) + 1))


def text_neighbours(
    vectors_N_Q: np.ndarray, words_N_V: sparse.csr_matrix, config: SignalsConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(N+1, 1+k) each item, then those nearest by embeddings and words; weights 1, then shares of 1."""
    items = len(vectors_N_Q) - 1
    k = min(config.neighbours, items - 1)
    neighbours = np.zeros((items + 1, 1 + k), dtype=np.int32)
    weights = np.zeros((items + 1, 1 + k), dtype=np.float32)
    neighbours[:, 0], weights[1:, 0] = np.arange(items + 1), 1.0
    for start in range(1, items + 1 if k else 0, NEIGHBOUR_ROWS):
        rows = np.arange(start, min(start + NEIGHBOUR_ROWS, items + 1))
        cosines = (vectors_N_Q[rows] @ vectors_N_Q.T + (words_N_V[rows] @ words_N_V.T).toarray()) / 2
        cosines[:, 0] = cosines[np.arange(len(rows)), rows] = -1.0
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        shares = np.maximum(np.take_along_axis(cosines, nearest, axis=1), 0.0) ** config.sharpness
        neighbours[rows, 1:] = nearest
        weights[rows, 1:] = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
    return neighbours, weights


def followed_pairs(
    sequences: Sequence[np.ndarray], rows: int, config: SignalsConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts (rows + 1,), items (P,) and counts (P,): for each item those near it, before or after."""
    first, second, counts = [], [], []
    for gap in range(1, config.window + 1):
        before = np.concatenate([np.zeros(0, np.int64), *(items[:-gap] for items in sequences if len(items) > gap)])
        after = np.concatenate([np.zeros(0, np.int64), *(items[gap:] for items in sequences if len(items) > gap)])
        first += [before, after]
        second += [after, before]
        counts.append(np.full(2 * len(before), config.discount ** (gap - 1)))
    pairs, places = np.unique(np.concatenate(first) * rows + np.concatenate(second), return_inverse=True)
    totals = np.bincount(places, np.concatenate(counts), minlength=len(pairs))
    items, followed = pairs // rows, pairs % rows
    real = items != followed
    items, followed, totals = items[real], followed[real], totals[real]
    order = np.lexsort((-totals, items))
    items, followed, totals = items[order], followed[order], totals[order]
    begins = np.searchsorted(items, np.arange(rows))
    kept = np.arange(len(items)) - begins[items] < config.most_pairs
    starts = np.searchsorted(items[kept], np.arange(rows + 1))
    return starts.astype(np.int64), followed[kept].astype(np.int32), totals[kept].astype(np.float32)
