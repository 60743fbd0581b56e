"""Ranking metrics over candidate sets: Hit@K, NDCG@K and MRR with bootstrap intervals (A-LLMRec section 5.1).

Every user has one positive, so a metric is a function of the positive's rank alone, and all that a bootstrap needs
is the histogram of ranks. Axes: U users, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from models.config import Config

RESAMPLES = 2000
EXACT = 1e-12
"""What sums of floats may be off."""


class Estimate(Config):
    """A mean over users and the 95 % percentile bootstrap interval around it."""

    mean: float
    low: float
    high: float


def estimate_of(means_R: np.ndarray, mean: float, users: int) -> Estimate:
    """The mean over users of a metric between 0 and 1, and the middle 95 % of resampled means (R,).

    Where all users have 0, or all have 1, resampling knows no others: how many there may be is the bound of Clopper
    and Pearson (1934) then.
    """
    low, high = np.percentile(means_R, [2.5, 97.5])
    others = 1.0 - 0.025 ** (1 / users)
    if mean <= EXACT:
        high = others
    elif mean >= 1.0 - EXACT:
        low = 1.0 - others
    return Estimate(mean=mean, low=float(low), high=float(high))


def share_estimate(hits_U: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The share of users (U,) with a hit."""
    share = float(np.mean(hits_U))
    # Resampling users with replacement is a binomial draw over hits and misses.
    shares = np.random.default_rng(seed).binomial(len(hits_U), share, resamples) / len(hits_U)
    return estimate_of(shares, share, len(hits_U))


def share_among(hits_E: np.ndarray, users_E: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The share of questions (E,) with a hit, where a user (E,) may have been asked several: users are drawn anew."""
    _, places_E, asked_U = np.unique(users_E, return_inverse=True, return_counts=True)
    hits_U = np.bincount(places_E, weights=hits_E.astype(float), minlength=len(asked_U))
    rng = np.random.default_rng(seed)
    drawn_R_U = rng.multinomial(len(asked_U), np.full(len(asked_U), 1 / len(asked_U)), size=resamples)
    return estimate_of((drawn_R_U @ hits_U) / (drawn_R_U @ asked_U), float(np.mean(hits_E)), len(asked_U))


def paired_difference(
    values_U: np.ndarray, reference_U: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """How much more one ranker has than another on the same users (U,): what users share cancels out."""
    distinct, counts = np.unique(values_U - reference_U, return_counts=True)
    weights_R_D = np.random.default_rng(seed).multinomial(len(values_U), counts / len(values_U), size=resamples)
    low, high = np.percentile(weights_R_D @ distinct / len(values_U), [2.5, 97.5])
    return Estimate(mean=float(np.mean(values_U - reference_U)), low=float(low), high=float(high))


class RankingReport(Config):
    """What a ranker achieved on one group of users.

    Attributes:
        users: how many users the group has.
        metrics: by name: `hit@1`, `hit@5`, `ndcg@10`, `mrr`; empty for a group without users.
    """

    users: int
    metrics: dict[str, Estimate]


def positive_ranks(scores_U_C: np.ndarray) -> np.ndarray:
    """The rank (U,) of the positive in column 0, 1 being best.

    Ties count against the positive, and so does anything that is not a number: only what scores strictly lower is
    behind it. A constant scorer therefore ranks last, not first.
    """
    behind = scores_U_C[:, 1:] < scores_U_C[:, :1]
    return 1 + (~behind).sum(axis=1)


def hit_at(ranks: np.ndarray, cutoff: int) -> np.ndarray:
    """1 where the positive is among the first `cutoff`, else 0."""
    return (ranks <= cutoff).astype(np.float64)


def ndcg_at(ranks: np.ndarray, cutoff: int) -> np.ndarray:
    """1 / log2(1 + rank) within the first `cutoff`, else 0: with one positive the ideal DCG is 1."""
    return np.where(ranks <= cutoff, 1.0 / np.log2(1.0 + ranks), 0.0)


def reciprocal(ranks: np.ndarray) -> np.ndarray:
    """1 / rank."""
    return 1.0 / ranks


METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hit@1": lambda ranks: hit_at(ranks, 1),
    "hit@5": lambda ranks: hit_at(ranks, 5),
    "hit@10": lambda ranks: hit_at(ranks, 10),
    "ndcg@10": lambda ranks: ndcg_at(ranks, 10),
    "mrr": reciprocal,
    "recall@20": lambda ranks: hit_at(ranks, 20),
    "recall@100": lambda ranks: hit_at(ranks, 100),
}
CANDIDATE_METRICS = ("hit@1", "hit@5", "hit@10", "ndcg@10", "mrr")
"""Of a positive among sampled candidates; recall is of a whole catalogue, where hit@20 is called so."""
CALIBRATION_BINS = 15


def mean_metrics(scores_U_C: np.ndarray) -> dict[str, float]:
    """The plain means, for validation while training; 0 when there is nobody."""
    ranks = positive_ranks(scores_U_C)
    return {name: float(METRICS[name](ranks).mean()) if len(ranks) else 0.0 for name in CANDIDATE_METRICS}


def chance_metrics(choices_U: np.ndarray, names: Sequence[str] = CANDIDATE_METRICS) -> dict[str, float]:
    """What a random order of so many choices (U,), the positive among them, has on average."""
    ranks = np.arange(1, int(choices_U.max(initial=1)) + 1)
    means = {name: np.cumsum(METRICS[name](ranks)) / ranks for name in names}
    return {name: float(values[choices_U - 1].mean()) if len(choices_U) else 0.0 for name, values in means.items()}


def candidates_in_words(chance: float) -> str:
    """How many are ranked, by the Hit@1 (0 to 1) of a random order: small catalogues do not have 19 others for all."""
    return "1 + 19" if chance <= 1 / 20 + EXACT else "1 + at most 19"


def calibration_error(scores_U_C: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of the softmax of logits (Guo et al., 2017, equation 3).

    The first candidate's probability against how often the first is the positive, in bins of equal width, weighted by
    how many users each has. 0 is best; chance that says so has 0.

    Args:
        scores_U_C: logits, the positive in column 0, -inf at padding.
        bins: how many.
    """
    if not len(scores_U_C):
        return 0.0
    exponents_U_C = np.exp(scores_U_C.astype(np.float64) - scores_U_C.max(axis=1, keepdims=True))
    confidence_U = exponents_U_C.max(axis=1) / exponents_U_C.sum(axis=1)
    hits_U = hit_at(positive_ranks(scores_U_C), 1)
    bin_U = np.clip(np.ceil(confidence_U * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(bin_U, weights=hits_U - confidence_U, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores_U_C))


def report_ranks(
    ranks: np.ndarray,
    groups: Mapping[str, np.ndarray] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: Sequence[str] = CANDIDATE_METRICS,
) -> dict[str, RankingReport]:
    """Summarise the positives' ranks.

    Args:
        ranks: (U,) ranks from 1.
        groups: name to (U,) bool mask, such as `warm` and `cold`; `overall` is always reported.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        names: of the metrics.

    Returns:
        A report per group, `overall` first.
    """
    masks = {"overall": np.ones(len(ranks), dtype=bool), **(groups or {})}
    return {name: _report(ranks[mask], resamples, np.random.default_rng(seed), names) for name, mask in masks.items()}


def report(
    scores_U_C: np.ndarray,
    groups: Mapping[str, np.ndarray] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, RankingReport]:
    """`report_ranks` of the positives in column 0 of `scores_U_C`."""
    return report_ranks(positive_ranks(scores_U_C), groups, resamples, seed)


def _report(ranks: np.ndarray, resamples: int, rng: np.random.Generator, names: Sequence[str]) -> RankingReport:
    if not len(ranks):
        return RankingReport(users=0, metrics={})
    distinct, counts = np.unique(ranks, return_counts=True)
    # Resampling users with replacement is a multinomial draw over the ranks they have.
    weights_R_D = rng.multinomial(len(ranks), counts / len(ranks), size=resamples) / len(ranks)
    metrics = {}
    for name in names:
        values_D = METRICS[name](distinct)
        metrics[name] = estimate_of(weights_R_D @ values_D, float(values_D @ counts / len(ranks)), len(ranks))
    return RankingReport(users=len(ranks), metrics=metrics)


def rank_correlation(scores_E_C: np.ndarray, reference_E_C: np.ndarray) -> float:
    """Mean over users of the Spearman correlation of two score tables; -inf marks padding and is left out.

    Equal scores rank in the order of the columns.
    """
    real_E_C = np.isfinite(reference_E_C)
    counts_E = real_E_C.sum(axis=1)
    first, second = (_places(table, real_E_C) for table in (scores_E_C, reference_E_C))
    # Places are 0..n-1 in both tables, so both have a variance of (n^2 - 1) / 12.
    mean_E = (counts_E - 1) / 2
    covariance_E = (first * second * real_E_C).sum(axis=1) / np.maximum(counts_E, 1) - mean_E**2
    told_E = counts_E > 1
    values = covariance_E[told_E] * 12 / (counts_E[told_E] ** 2 - 1.0)
    return float(values.mean()) if len(values) else 0.0


def _places(scores_E_C: np.ndarray, real_E_C: np.ndarray) -> np.ndarray:
    """(E, C) the places from 0 of what is real in each row, lowest score first; what is not has places below 0."""
    order_E_C = np.lexsort((scores_E_C, real_E_C), axis=1)
    return np.argsort(order_E_C, axis=1) - (~real_E_C).sum(axis=1, keepdims=True)
