"""Worlds: geometries of users and items in which the true ranking is known.

One prompt is one world. Its coordinates imitate what trained CF tables look like: decaying spectra, spread norms, a
popularity direction, histories that lie near their user. The law is always the same, `logit = coupling * <u, z>`,
so that the LM learns the law and no catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

_ROTATIONS = 256


@dataclass(frozen=True)
class World:
    """A user, candidates and a history in interface coordinates.

    Attributes:
        user: (k,).
        candidates: (n, k).
        history: (h, k).
        log_probs: (n,) the true log-probability of each candidate.
    """

    user: np.ndarray
    candidates: np.ndarray
    history: np.ndarray
    log_probs: np.ndarray


def draw_world(
    rng: np.random.Generator, size: int, candidates: int, history: int, coupling: float, sharpness: float = 2.5
) -> World:
    """Draw one world of coordinate size k = `size`.

    Args:
        rng: the source of all randomness.
        size: k.
        candidates: n, at least 2.
        history: h, may be 0.
        coupling: the law's constant.
        sharpness: median over worlds of the standard deviation of a prompt's logits.
    """
    spectrum = np.arange(1, size + 1) ** (-rng.uniform(0.0, 1.3))
    spectrum[rng.integers(min(12, size), size + 1) :] = 0.0
    spectrum = np.sqrt(spectrum / spectrum.mean())
    norms = np.exp(rng.uniform(0.0, 0.6) * rng.standard_normal((candidates + history, 1)))
    items = rng.standard_normal((candidates + history, size)) * spectrum ** rng.uniform(0.0, 1.0) * norms
    user = rng.standard_normal(size) * spectrum

    popular = rng.standard_normal(size) * spectrum
    popular /= np.linalg.norm(popular)
    skewed = rng.random() < 0.5
    bias = (
        rng.standard_exponential((candidates + history, 1)) - 1.0
        if skewed
        else rng.standard_normal((candidates + history, 1))
    )
    items += rng.uniform(0.0, 6.0) * bias * popular
    user += rng.uniform(0.0, 6.0) * popular
    items[candidates:] += (
        rng.uniform(0.0, 0.8) * user * np.linalg.norm(items) / np.linalg.norm(user) / len(items) ** 0.5
    )

    rotation = _rotations(size)[rng.integers(_ROTATIONS)]
    axes = rng.permutation(size)
    items, user = items[:, axes] @ rotation, user[axes] @ rotation
    spread = np.clip(sharpness * np.exp(0.5 * rng.standard_normal()), 0.28 * sharpness, 2.0 * sharpness)
    scale = spread / (coupling * (items[:candidates] @ user).std())
    balance = np.sqrt(np.square(items[:candidates]).sum(axis=1).mean() / np.square(user).sum())
    balance *= np.exp(0.15 * rng.standard_normal())
    user *= np.sqrt(scale * balance)
    items *= np.sqrt(scale / balance)
    logits = coupling * items[:candidates] @ user
    shifted = logits - logits.max()
    return World(user, items[:candidates], items[candidates:], shifted - np.log(np.exp(shifted).sum()))


@cache
def _rotations(size: int) -> np.ndarray:
    """Random orthogonal matrices: to draw one for every prompt would be a third of its cost."""
    rng = np.random.default_rng(size)
    return np.linalg.qr(rng.standard_normal((_ROTATIONS, size, size)))[0]
