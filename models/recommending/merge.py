"""From scores to probabilities over a ranked list, of which the LLM ranks a window.

Axes: K items, W of them ranked by the LLM.
"""

from __future__ import annotations

import numpy as np


def softmax(scores_K: np.ndarray) -> np.ndarray:
    """(K,) probabilities."""
    if len(scores_K) == 0:
        return np.zeros(0)
    exponents = np.exp(np.asarray(scores_K, dtype=np.float64) - np.max(scores_K))
    return exponents / exponents.sum()


def popularity(interactions_K: np.ndarray) -> np.ndarray:
    """(K,) share of the interactions, each item given one more so that none is impossible."""
    counts = np.asarray(interactions_K, dtype=np.float64) + 1.0
    return counts / counts.sum() if len(counts) else counts


def merge_window(cf_scores_K: np.ndarray, llm_log_probs_W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank the first W items by the LLM and leave the rest to the CF.

    The window holds the probability that the CF gives it, shared out as the LLM says. The tail keeps its CF
    probabilities, scaled down as far as needed for none to exceed the window's least, and everything is normalised:
    scores sum to one and never rise with rank.

    Args:
        cf_scores_K: collaborative logits, highest first.
        llm_log_probs_W: log-probabilities of the first W items, W >= 1.

    Returns:
        The order (K,) as positions in the input, best first, and the scores (K,) in that order.
    """
    window = len(llm_log_probs_W)
    cf_K = softmax(cf_scores_K)
    order_W = np.argsort(-llm_log_probs_W, kind="stable")
    window_W = softmax(llm_log_probs_W)[order_W] * cf_K[:window].sum()
    tail = cf_K[window:]
    if len(tail) and tail[0] > window_W[-1]:
        tail = tail * (window_W[-1] / tail[0])
    scores_K = np.concatenate([window_W, tail])
    return np.concatenate([order_W, np.arange(window, len(cf_K))]), scores_K / scores_K.sum()
