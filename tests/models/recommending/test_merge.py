"""Probabilities over a ranked set."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.recommending.merge import merge_window, popularity, softmax

SCORES = st.floats(-30, 30)


def test_softmax_of_log_probabilities_gives_them_back() -> None:
    np.testing.assert_allclose(softmax(np.log([0.2, 0.5, 0.3])), [0.2, 0.5, 0.3])


def test_softmax_of_nothing_is_nothing() -> None:
    assert len(softmax(np.zeros(0))) == 0


def test_popularity_leaves_no_item_impossible() -> None:
    """Counts 3, 0, 0 become 4, 1, 1 of 6."""
    np.testing.assert_allclose(popularity(np.array([3, 0, 0])), [4 / 6, 1 / 6, 1 / 6])


def test_blend_shares_the_windows_cf_mass_out_as_the_llm_says() -> None:
    """CF gives .4 .3 .2 .1 and the LLM ranks two: their .7 is split .25 / .75; the tail keeps .1, but .2 exceeds the
    window's least .175 and scales the tail to .175 and .0875. The sum .9625 is normalised."""
    order, scores = merge_window(np.log([0.4, 0.3, 0.2, 0.1]), np.log([0.25, 0.75]))
    assert order.tolist() == [1, 0, 2, 3]
    np.testing.assert_allclose(scores, np.array([0.525, 0.175, 0.175, 0.0875]) / 0.9625)


def test_blend_leaves_a_tail_alone_that_is_below_the_window() -> None:
    """CF gives .5 .4 .1 and the LLM splits the .9 evenly."""
    order, scores = merge_window(np.log([0.5, 0.4, 0.1]), np.log([0.5, 0.5]))
    assert order.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, [0.45, 0.45, 0.1])


def test_blend_of_one_item_is_certain() -> None:
    order, scores = merge_window(np.array([3.0]), np.array([0.0]))
    assert order.tolist() == [0]
    assert scores.tolist() == [1.0]


@given(st.data())
def test_blend_is_a_ranking_with_probabilities_that_never_rise(data: st.DataObject) -> None:
    """Whatever CF and LLM say: every item once, scores sum to one, fall with rank, the tail keeps its order."""
    size = data.draw(st.integers(1, 40))
    window = data.draw(st.integers(1, size))
    cf_scores = -np.sort(-data.draw(arrays(np.float64, size, elements=SCORES)))
    log_probs = np.log(softmax(data.draw(arrays(np.float64, window, elements=SCORES))))
    order, scores = merge_window(cf_scores, log_probs)
    assert sorted(order.tolist()) == list(range(size))
    assert order[window:].tolist() == list(range(window, size))
    assert abs(scores.sum() - 1) < 1e-9
    assert (np.diff(scores) <= 1e-12).all()
    assert (np.diff(log_probs[order[:window]]) <= 0).all()
