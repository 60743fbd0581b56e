"""From scores to probabilities over a ranked list, of which the LLM ranks a window.

Axes: C items, W of them ranked by the LLM.
"""

from __future__ import annotations

import numpy as np


def softmax(scores_C: np.ndarray) -> np.ndarray:
    """(C,) probabilities."""
    if len(scores_C) == 0:
        return np.zeros(0)
    exponents = np.exp(np.asarray(scores_C, dtype=np.float64) - np.max(scores_C))
    return exponents / exponents.sum()


def popularity(interactions_C: np.ndarray) -> np.ndarray:
    """(C,) share of the interactions, each item given one more so that none is impossible."""
    counts = np.asarray(interactions_C, dtype=np.float64) + 1.0
    return counts / counts.sum() if len(counts) else counts


def merge_window(logits_C: np.ndarray, window_logits_W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank the first W items by one ranker and leave the rest to another.

    The window holds the probability that the other gives it, shared out as the one says. The tail keeps the other's
    probabilities, scaled down as far as needed for none to exceed the window's least, and everything is normalised:
    scores sum to one and never rise with rank.

    Args:
        logits_C: of all items by the ranker without the LLM, highest first.
        window_logits_W: of the first W items by the ranker with the LLM, W >= 1.

    Returns:
        The order (C,) as positions in the input, best first, and the scores (C,) in that order.
    """
    window = len(window_logits_W)
    before_C = softmax(logits_C)
    order_W = np.argsort(-window_logits_W, kind="stable")
    window_W = softmax(window_logits_W)[order_W] * before_C[:window].sum()
    tail = before_C[window:]
    if len(tail) and tail[0] > window_W[-1]:
        tail = tail * (window_W[-1] / tail[0])
    scores_C = np.concatenate([window_W, tail])
    return np.concatenate([order_W, np.arange(window, len(before_C))]), scores_C / scores_C.sum()
