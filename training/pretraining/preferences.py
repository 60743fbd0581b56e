"""Synthetic preferences: users and items in the coordinates of the token law, of which the true ranking is known.

One prompt is one draw. Its coordinates imitate what trained CF tables look like: decaying spectra, spread norms, a
popularity direction, histories that lie near their user. A second set of coordinates y says what is like what, as text
embeddings do; p says what is popular; and the titles themselves say which candidates are of a series that the history
holds. The law is always the same, `logit = coupling * (<u, z> + <mean y of the history, y> + p + w * s)`, so that the
LM learns the law and no catalogue.

Ranges are wide on purpose: what a catalogue looks like is not known beforehand, so every prompt is another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

_ROTATIONS = 256
"""So many that no direction is special. A fresh one for every prompt would be a third of its cost."""


@dataclass(frozen=True)
class Preferences:
    """A user, candidates and a history in interface coordinates, and what the user would choose.

    Attributes:
        user: (k + 1,), u and w.
        candidates: (n, k + m + 1), z, y and p.
        history: (h, k + m + 1), z, y and p.
        series: (n,) s.
        log_probs: (n,) the true log-probability of each candidate.
    """

    user: np.ndarray
    candidates: np.ndarray
    history: np.ndarray
    series: np.ndarray
    log_probs: np.ndarray


def draw_preferences(
    rng: np.random.Generator,
    size: int,
    similarity_size: int,
    series: np.ndarray,
    history: int,
    coupling: float,
    sharpness: float = 2.5,
) -> Preferences:
    """Draw a user's preferences among candidates.

    Args:
        rng: the source of all randomness.
        size: k.
        similarity_size: m.
        series: (n,) s, whether each candidate is of a series that the history holds; n is at least 2.
        history: h, may be 0.
        coupling: the law's constant.
        sharpness: median over draws of the standard deviation of a prompt's logits, series left out.
    """
    # Log-normal around the median, cut where a prompt would be a tie or have a single possible answer.
    spread = np.clip(sharpness * np.exp(0.5 * rng.standard_normal()), 0.28 * sharpness, 2.0 * sharpness)
    candidates = len(series)
    alike = _similarity_share(rng) if history else 0.0
    popular = _popularity_share(rng) * (1 - alike)
    matched = 1 - alike - popular  # the three are independent, so that their variances add up to spread^2
    user, items = _matches(rng, size, candidates, history, coupling, spread * np.sqrt(matched))
    similar = _similarities(rng, similarity_size, candidates, history, coupling, spread * np.sqrt(alike))
    popularity = spread * np.sqrt(popular) / coupling * _bias(rng, candidates + history)
    weight = _series_weight(rng) / coupling
    logits = coupling * (items[:candidates] @ user + popularity[:candidates, 0] + weight * series)
    if history:
        logits += coupling * similar[:candidates] @ similar[candidates:].mean(axis=0)
    shifted = logits - logits.max()
    items = np.concatenate([items, similar, popularity], axis=1)
    user = np.append(user, weight)
    log_probs = shifted - np.log(np.exp(shifted).sum())
    return Preferences(user, items[:candidates], items[candidates:], series, log_probs)


def _similarity_share(rng: np.random.Generator) -> float:
    """The share of the logits' variance that similarity with the history explains.

    Often none, so that the LM does not rely on it; seldom all, so that it also works without u.
    """
    kind = rng.random()
    return 0.0 if kind < 0.4 else 1.0 if kind < 0.45 else float(rng.random())


def _popularity_share(rng: np.random.Generator) -> float:
    """The share of the rest that popularity explains: none in half of the prompts, never all."""
    return 0.0 if rng.random() < 0.5 else float(rng.uniform(0.0, 0.9))


def _series_weight(rng: np.random.Generator) -> float:
    """What a series that the history holds adds to a logit: nothing, up to 4, or something below 0.

    Below, where users have enough of it.
    """
    kind = rng.random()
    return 0.0 if kind < 0.3 else float(rng.uniform(-2.0, 0.0) if kind < 0.4 else rng.uniform(0.0, 4.0))


def _bias(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 1) of mean 0 and variance 1, in every other draw with a long tail, as popularity has."""
    if rng.random() < 0.5:
        return rng.standard_exponential((count, 1)) - 1.0
    return rng.standard_normal((count, 1))


def _matches(
    rng: np.random.Generator, size: int, candidates: int, history: int, coupling: float, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """The user (k,) and the candidates and history (n + h, k), such that the candidates' logits spread by `spread`."""
    # Singular values of a CF table fall by a power law, from flat to steep; small backbones have a rank below k.
    spectrum = np.arange(1, size + 1) ** (-rng.uniform(0.0, 1.3))
    spectrum[rng.integers(min(12, size), size + 1) :] = 0.0
    spectrum = np.sqrt(spectrum / spectrum.mean())
    norms = np.exp(rng.uniform(0.0, 0.6) * rng.standard_normal((candidates + history, 1)))
    items = rng.standard_normal((candidates + history, size)) * spectrum ** rng.uniform(0.0, 1.0) * norms
    user = rng.standard_normal(size) * spectrum

    # A direction that all users share and popular items lie along, as inner products of a CF backbone have.
    popular = rng.standard_normal(size) * spectrum
    popular /= np.linalg.norm(popular)
    items += rng.uniform(0.0, 6.0) * _bias(rng, candidates + history) * popular
    user += rng.uniform(0.0, 6.0) * popular
    # A history lies towards its user, by up to .8 of an item's length.
    items[candidates:] += (
        rng.uniform(0.0, 0.8) * user * np.linalg.norm(items) / np.linalg.norm(user) / len(items) ** 0.5
    )

    # No coordinate is special. A rotation and a permutation, because rotations come from a stock.
    rotation = _rotations(size)[rng.integers(_ROTATIONS)]
    axes = rng.permutation(size)
    items, user = items[:, axes] @ rotation, user[axes] @ rotation
    scale = spread / (coupling * (items[:candidates] @ user).std())
    # The law fixes the product of the lengths of u and z. They are shared out evenly, up to some noise: a long and a
    # short vector would give the same logits, but layer norm would leave little of the short one.
    balance = np.sqrt(np.square(items[:candidates]).sum(axis=1).mean() / np.square(user).sum())
    balance *= np.exp(0.15 * rng.standard_normal())
    user *= np.sqrt(scale * balance)
    items *= np.sqrt(scale / balance)
    return user, items


def _similarities(
    rng: np.random.Generator, size: int, candidates: int, history: int, coupling: float, spread: float
) -> np.ndarray:
    """(n + h, m): a taste that the history shares, and some candidates too. Of any length if it does not count."""
    # Text embeddings' spectra fall less than those of CF tables.
    spectrum = np.arange(1, size + 1) ** (-rng.uniform(0.0, 0.8))
    items = rng.standard_normal((candidates + history, size)) * spectrum
    taste = rng.standard_normal(size) * spectrum
    items[:candidates] += rng.standard_exponential((candidates, 1)) * rng.uniform(0.0, 1.0) * taste
    items[candidates:] += rng.uniform(0.5, 2.0) * taste
    items += rng.uniform(0.0, 1.0) * rng.standard_normal(size) * spectrum
    items = items[:, rng.permutation(size)] @ _rotations(size)[rng.integers(_ROTATIONS)]
    if not history:
        return items * rng.uniform(0.0, 2.0)
    like = coupling * items[:candidates] @ items[candidates:].mean(axis=0)
    length = np.sqrt(spread / like.std())
    # No longer than 20 (3.7 in tokens): beside a type of 6, more would change what layer norm makes of a slot.
    return items * min(length, 20.0 / np.linalg.norm(items, axis=1).max())


@cache
def _rotations(size: int) -> np.ndarray:
    """Random orthogonal matrices."""
    rng = np.random.default_rng(size)
    return np.linalg.qr(rng.standard_normal((_ROTATIONS, size, size)))[0]
