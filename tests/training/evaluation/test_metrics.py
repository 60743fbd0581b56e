"""Metrics: worked examples, ties against the ranker, intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation.metrics import (
    calibration_error,
    chance_metrics,
    mean_metrics,
    paired_difference,
    positive_ranks,
    report,
    report_ranks,
    share_among,
    share_estimate,
)


def test_ranks_count_what_scores_higher() -> None:
    """The positive is in column 0: first, second and last of three."""
    scores = np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0], [0.0, 3.0, 1.0]])
    assert positive_ranks(scores).tolist() == [1, 2, 3]


def test_ties_count_against_the_positive() -> None:
    """A constant scorer is last of twenty, so its Hit@1 is 0, and that is not an accident of order."""
    scores = np.zeros((5, 20))
    assert positive_ranks(scores).tolist() == [20] * 5
    assert mean_metrics(scores)["hit@1"] == 0.0


def test_what_is_not_a_number_never_wins() -> None:
    """A NaN positive is last; a NaN negative stands before the positive; padding at -inf stands behind."""
    nan, inf = np.nan, np.inf
    scores = np.array([[nan, 1.0, 2.0], [1.0, nan, 0.0], [1.0, -inf, -inf], [-inf, -inf, -inf]])
    assert positive_ranks(scores).tolist() == [3, 2, 1, 3]


def test_metrics_of_known_ranks() -> None:
    """Ranks 1, 3 and 12 by hand."""
    found = report_ranks(np.array([1, 3, 12]))["overall"]
    assert found.users == 3
    means = {name: estimate.mean for name, estimate in found.metrics.items()}
    assert means == pytest.approx(
        {
            "hit@1": 1 / 3,
            "hit@5": 2 / 3,
            "hit@10": 2 / 3,
            "ndcg@10": (1 + 1 / math.log2(4)) / 3,
            "mrr": (1 + 1 / 3 + 1 / 12) / 3,
        }
    )


def test_groups_are_reported_beside_the_whole() -> None:
    """Two users are warm, one is cold, nobody is new."""
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    groups = {"warm": np.array([True, True, False]), "cold": np.array([False, False, True]), "new": np.zeros(3, bool)}
    found = report(scores, groups)
    assert list(found) == ["overall", "warm", "cold", "new"]
    assert [found[name].users for name in found] == [3, 2, 1, 0]
    assert found["warm"].metrics["hit@1"].mean == 0.5
    assert found["cold"].metrics["hit@1"].mean == 1.0
    assert found["new"].metrics == {}


def test_interval_is_the_bootstrap_over_users() -> None:
    """For 400 users and 100 hits the percentile interval is close to the normal one, and equals a plain resampling."""
    ranks = np.array([1] * 100 + [2] * 300)
    estimate = report_ranks(ranks, resamples=4000)["overall"].metrics["hit@1"]
    error = math.sqrt(0.25 * 0.75 / 400)
    assert estimate.low == pytest.approx(0.25 - 1.96 * error, abs=0.008)
    assert estimate.high == pytest.approx(0.25 + 1.96 * error, abs=0.008)
    rng = np.random.default_rng(5)
    means = [(ranks[rng.integers(400, size=400)] == 1).mean() for _ in range(4000)]
    assert [estimate.low, estimate.high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.008)


@pytest.mark.parametrize("users", [5, 60])
def test_users_who_are_all_alike_leave_room_for_others(users: int) -> None:
    """Resampled they would be certain; an exact binomial interval has what 1 in 40 would still see so."""
    others = 1 - 0.025 ** (1 / users)
    none, all_ = (report_ranks(np.full(users, rank))["overall"].metrics["hit@1"] for rank in (2, 1))
    assert (none.mean, none.low, none.high) == (0.0, 0.0, pytest.approx(others))
    assert (all_.mean, all_.low, all_.high) == (1.0, pytest.approx(1 - others), 1.0)
    assert (1 - others) ** users == pytest.approx(0.025)
    assert share_estimate(np.zeros(users)).high == pytest.approx(others)
    thrice = np.tile([f"u{number}" for number in range(users)], 3)
    assert share_among(np.ones(3 * users), thrice).low == pytest.approx(1 - others)


def test_a_paired_difference_cancels_what_users_share() -> None:
    """Its interval is that of the differences alone: 1.96 standard errors of them, much less than of either ranker."""
    rng = np.random.default_rng(0)
    reference = (rng.random(4000) < 0.5).astype(float)
    better = np.where(rng.random(4000) < 0.1, 1.0, reference)
    found = paired_difference(better, reference)
    error = (better - reference).std() / np.sqrt(4000)
    assert found.mean == pytest.approx((better - reference).mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert found.high - found.low < 0.5 * 2 * 1.96 * better.std() / np.sqrt(4000)


def test_users_who_are_asked_again_are_no_further_users() -> None:
    """The same answers of 100 users three times tell no more than once; with a question each it is the usual share."""
    hits = np.random.default_rng(0).random(100) < 0.3
    users = np.array([f"u{number}" for number in range(100)])
    once, thrice = share_among(hits, users), share_among(np.tile(hits, 3), np.tile(users, 3))
    usual = share_estimate(hits)
    assert once.mean == thrice.mean == usual.mean
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.05)
    assert once.high - once.low == pytest.approx(usual.high - usual.low, rel=0.1)


def test_certainty_has_no_width() -> None:
    """When every user has the same rank, every resample does."""
    estimate = report_ranks(np.full(50, 2))["overall"].metrics["mrr"]
    assert (estimate.low, estimate.mean, estimate.high) == (0.5, 0.5, 0.5)


def test_reports_are_reproducible() -> None:
    """The same seed gives the same interval, another seed another one."""
    ranks = np.random.default_rng(0).integers(1, 21, size=200)
    assert report_ranks(ranks, seed=1) == report_ranks(ranks, seed=1)
    assert report_ranks(ranks, seed=1) != report_ranks(ranks, seed=2)


def test_chance_is_the_mean_over_all_places() -> None:
    """Among 2 and 4 choices: Hit@1 is (1/2 + 1/4) / 2; the reciprocal rank is (3/4 + 25/48) / 2."""
    found = chance_metrics(np.array([2, 4]))
    assert found["hit@1"] == pytest.approx(3 / 8)
    assert found["hit@5"] == 1.0
    assert found["mrr"] == pytest.approx((3 / 4 + 25 / 48) / 2)


def test_calibration_compares_probability_and_hits() -> None:
    """Four users for whom the first has .8, which is right for two: off by .3. Saying .5 would be right."""
    right, wrong = np.log([0.8, 0.2]), np.log([0.2, 0.8])
    assert calibration_error(np.stack([right, wrong, right, wrong])) == pytest.approx(0.3)
    fair = np.log([[0.5001, 0.4999], [0.4999, 0.5001]])
    assert calibration_error(fair) == pytest.approx(0.0, abs=1e-3)


def test_calibration_weighs_bins_by_users() -> None:
    """Three of .9 that are all right (off by .1), and one of .6 that is wrong (off by .6): (3 * .1 + .6) / 4."""
    sure, unsure = np.log([0.9, 0.1]), np.log([0.4, 0.6])
    assert calibration_error(np.stack([sure, sure, sure, unsure])) == pytest.approx(0.225)


def test_padding_has_no_probability() -> None:
    """One real candidate is certain and right."""
    assert calibration_error(np.array([[0.3, -np.inf]])) == pytest.approx(0.0)
