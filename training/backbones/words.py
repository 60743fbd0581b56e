"""Fits the words of a catalogue: vocabulary, rarities, and the directions in which its texts differ most.

Axes: n texts, V words, W directions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from models.alignment.words import WordEncoder, weigh, words_of

MOST_WORDS = 30_000
"""The most frequent ones are kept: 30 MB of a bundle at 256 directions."""
SPARE, POWERS = 16, 4
"""Further directions and passes over the matrix with which the randomised SVD finds the first ones well."""


def fit_words(texts: Sequence[str], size: int, seed: int = 0) -> WordEncoder | None:
    """The words of `texts`, in at most `size` directions; None where no two texts share a word that another lacks.

    A word of one text alone says nothing that another could share, one of all texts nothing that another could lack:
    they are left out.
    The directions are the right singular vectors of the TF-IDF matrix, whose rows have unit length.

    Args:
        texts: of all items; that of the padding row, which is empty, counts as none.
        size: W at most.
        seed: of the randomised SVD.
    """
    said = [text for text in texts if text]
    found = Counter(word for text in said for word in set(words_of(text)))
    frequencies = [(word, count) for word, count in found.most_common(MOST_WORDS) if 1 < count < len(said)]
    vocabulary = sorted(word for word, _ in frequencies)
    counts = np.asarray([found[word] for word in vocabulary], dtype=np.float64)
    rarities = np.log(len(said) / counts)
    size = min(size, len(vocabulary), len(said))
    if not size:
        return None
    matrix_n_V = _tf_idf(said, {word: number for number, word in enumerate(vocabulary)}, rarities)
    directions_V_W = right_singular_vectors(matrix_n_V, size, np.random.default_rng(seed))
    length = np.sqrt(np.square(matrix_n_V @ directions_V_W).sum() / len(said))
    return WordEncoder(vocabulary, rarities, (directions_V_W / max(length, 1e-9)).astype(np.float32))


def right_singular_vectors(matrix_n_V: sparse.csr_matrix, size: int, rng: np.random.Generator) -> np.ndarray:
    """(V, size) the first right singular vectors, by a randomised range finder with power iterations.

    Halko, Martinsson and Tropp, "Finding structure with randomness", 2011, algorithms 4.4 and 5.1.
    """
    width = min(size + SPARE, *matrix_n_V.shape)
    basis_V_K = np.linalg.qr(matrix_n_V.T @ rng.standard_normal((matrix_n_V.shape[0], width)))[0]
    for _ in range(POWERS):
        basis_n_K = np.linalg.qr(matrix_n_V @ basis_V_K)[0]
        basis_V_K = np.linalg.qr(matrix_n_V.T @ basis_n_K)[0]
    _, _, turn_K_K = np.linalg.svd(matrix_n_V @ basis_V_K, full_matrices=False)
    return np.asarray(basis_V_K @ turn_K_K[:size].T)


def _tf_idf(texts: Sequence[str], numbers: dict[str, int], rarities: np.ndarray) -> sparse.csr_matrix:
    """(n, V) rows of unit length, where they have a word that weighs anything."""
    rows = [weigh(text, numbers, rarities) for text in texts]
    columns = np.concatenate([words for words, _ in rows])
    values = np.concatenate([weights for _, weights in rows])
    starts = np.concatenate([[0], np.cumsum([len(words) for words, _ in rows])])
    return sparse.csr_matrix((values, columns, starts), shape=(len(texts), len(rarities)))
