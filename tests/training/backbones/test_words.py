"""Fitting the words of a catalogue, against scikit-learn's way of doing it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from training.backbones.words import fit_words, right_singular_vectors

TEXTS = [
    "",
    "red red fox",
    "red cat",
    "blue fox night",
    "blue night cat",
    "old red night",
    "old fox",
    "Blue fox, blue cat",
]


def test_likeness_is_that_of_truncated_tf_idf() -> None:
    """Inner products of all texts by scikit-learn's counts and numpy's SVD, in all directions and in fewer."""
    vectoriser = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True, min_df=2, use_idf=False, norm=None)
    counts = vectoriser.fit_transform(TEXTS[1:]).toarray()
    matrix = counts * np.log(len(counts) / (counts > 0).sum(axis=0))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    for size in (6, 3):
        words = fit_words(TEXTS, size)
        assert words is not None
        assert list(words.vocabulary) == vectoriser.get_feature_names_out().tolist()
        found = words.encode(TEXTS)
        expected = matrix @ np.linalg.svd(matrix, full_matrices=False)[2][:size].T
        expected /= np.sqrt(np.square(expected).sum(axis=1).mean())
        np.testing.assert_allclose(found[1:] @ found[1:].T, expected @ expected.T, atol=1e-5)
        assert not found[0].any()


def test_words_of_one_text_say_nothing() -> None:
    """Nor do words of all texts; a catalogue that has no others has no words. Sizes are at most what there is."""
    assert fit_words(["", "red", "blue"], 4) is None
    assert fit_words(["", "red fox", "red cat"], 4) is None
    words = fit_words(["", "red fox", "red cat", "blue"], 4)
    assert words is not None
    assert (words.vocabulary, words.size) == (["red"], 1)
    assert np.square(words.encode(["red fox", "red cat", "blue"])).sum(axis=1) == pytest.approx([1.5, 1.5, 0])


def test_the_randomised_svd_finds_the_first_directions() -> None:
    """Those of a matrix with well separated singular values, up to their signs; the same every time."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((size, 30)))[0] for size in (80, 60))
    matrix = sparse.csr_matrix(left * np.geomspace(1, 1e-3, 30) @ right.T)
    found = right_singular_vectors(matrix, 8, np.random.default_rng(1))
    assert np.abs((found * right[:, :8]).sum(axis=0)) == pytest.approx(np.ones(8), abs=1e-6)
    assert np.array_equal(found, right_singular_vectors(matrix, 8, np.random.default_rng(1)))
