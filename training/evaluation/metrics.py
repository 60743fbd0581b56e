"""Ranking metrics over candidate sets: Hit@K, NDCG@K and MRR with bootstrap intervals (A-LLMRec section 5.1).

Every user has one positive, so a metric is a function of the positive's rank alone, and all that a bootstrap needs
is the histogram of ranks. Axes: U users, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.config import Config

RESAMPLES = 2000


class Estimate(Config):
    """A mean over users and the 95 % percentile bootstrap interval around it."""

    mean: float
    low: float
    high: float


def share_estimate(hits_U: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The share of users (U,) with a hit."""
    share = float(np.mean(hits_U))
    # Resampling users with replacement is a binomial draw over hits and misses.
    shares = np.random.default_rng(seed).binomial(len(hits_U), share, resamples) / len(hits_U)
    low, high = np.percentile(shares, [2.5, 97.5])
    return Estimate(mean=share, low=float(low), high=float(high))


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


METRICS = {
    "hit@1": lambda ranks: hit_at(ranks, 1),
    "hit@5": lambda ranks: hit_at(ranks, 5),
    "hit@10": lambda ranks: hit_at(ranks, 10),
    "ndcg@10": lambda ranks: ndcg_at(ranks, 10),
    "mrr": reciprocal,
}


def mean_metrics(scores_U_C: np.ndarray) -> dict[str, float]:
    """The plain means, for validation while training."""
    ranks = positive_ranks(scores_U_C)
    return {name: float(metric(ranks).mean()) for name, metric in METRICS.items()}


def report_ranks(
    ranks: np.ndarray,
    groups: Mapping[str, np.ndarray] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, RankingReport]:
    """Summarise the positives' ranks.

    Args:
        ranks: (U,) ranks from 1.
        groups: name to (U,) bool mask, such as `warm` and `cold`; `overall` is always reported.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        A report per group, `overall` first.
    """
    masks = {"overall": np.ones(len(ranks), dtype=bool), **(groups or {})}
    return {name: _report(ranks[mask], resamples, np.random.default_rng(seed)) for name, mask in masks.items()}


def report(
    scores_U_C: np.ndarray,
    groups: Mapping[str, np.ndarray] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, RankingReport]:
    """`report_ranks` of the positives in column 0 of `scores_U_C`."""
    return report_ranks(positive_ranks(scores_U_C), groups, resamples, seed)


def _report(ranks: np.ndarray, resamples: int, rng: np.random.Generator) -> RankingReport:
    if not len(ranks):
        return RankingReport(users=0, metrics={})
    distinct, counts = np.unique(ranks, return_counts=True)
    # Resampling users with replacement is a multinomial draw over the ranks they have.
    weights_R_D = rng.multinomial(len(ranks), counts / len(ranks), size=resamples) / len(ranks)
    metrics = {}
    for name, metric in METRICS.items():
        values_D = metric(distinct)
        low, high = np.percentile(weights_R_D @ values_D, [2.5, 97.5])
        mean = values_D @ counts / len(ranks)
        metrics[name] = Estimate(mean=float(mean), low=float(low), high=float(high))
    return RankingReport(users=len(ranks), metrics=metrics)


def rank_correlation(scores_E_C: np.ndarray, reference_E_C: np.ndarray) -> float:
    """Mean over users of the Spearman correlation of two score tables; -inf marks padding and is left out.

    Equal scores rank in the order of the columns.
    """
    values = []
    for scores, reference in zip(scores_E_C, reference_E_C, strict=True):
        real = np.isfinite(reference)
        if real.sum() > 1:
            first, second = (np.argsort(np.argsort(table[real], kind="stable")) for table in (scores, reference))
            values.append(float(np.corrcoef(first, second)[0, 1]))
    return float(np.mean(values)) if values else 0.0
