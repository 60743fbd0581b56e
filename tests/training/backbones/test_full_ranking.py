"""Ranks among the whole catalogue, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.backbones import create_backbone, represent_all
from tests.tiny import tiny_split
from training.backbones import full_ranking
from training.backbones.full_ranking import FullRanking
from training.data.splits import Holdout


@pytest.mark.parametrize("holdout", list(Holdout))
@pytest.mark.parametrize("most_scores", [1, 100, 1 << 24])
def test_ranks_are_those_among_unknown_items(
    holdout: Holdout, most_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted one by one, in batches of one user, of three, and all at once."""
    monkeypatch.setattr(full_ranking, "MOST_SCORES", most_scores)
    split = tiny_split()
    torch.manual_seed(0)
    backbone = create_backbone("sasrec", {"num_items": 30, "embedding_size": 8}).eval().requires_grad_(False)
    ranking = FullRanking.of(split, holdout)
    expected = []
    for user in range(len(split)):
        history, positive = split.history(user, holdout), split.target(holdout)[user]
        scores = backbone.item_vectors.numpy() @ represent_all(backbone, [history])[0].numpy()
        others = [item for item in range(1, 31) if item not in history and item != positive]
        expected.append(1 + sum(scores[item] >= scores[positive] for item in others))
    assert ranking.ranks(backbone).tolist() == expected


def test_a_positive_that_was_met_before_counts_as_new() -> None:
    """As among candidates: user 0's target is in the history too, and all other known items are left out."""
    split = tiny_split()
    split.validation[0] = split.train[0][0]
    backbone = create_backbone("sasrec", {"num_items": 30, "embedding_size": 8}).eval().requires_grad_(False)
    backbone.items.weight[1:] = 0.0
    assert FullRanking.of(split, Holdout.VALIDATION).ranks(backbone)[0] == 30 - (len(split.train[0]) - 1)


def test_what_scores_alike_or_not_at_all_is_ahead() -> None:
    """A constant scorer ranks last, and so does one that is not a number."""
    split = tiny_split()
    backbone = create_backbone("sasrec", {"num_items": 30, "embedding_size": 8}).eval().requires_grad_(False)
    last = [30 - len(items) for items in split.train]
    for value in (0.0, float("nan")):
        backbone.items.weight[1:] = value
        assert FullRanking.of(split, Holdout.VALIDATION).ranks(backbone).tolist() == last


def test_metrics_are_means_over_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks 1, 3 and 101: NDCG@10 of 1, 1/2 and 0, two of three within 100; the third item is cold."""
    ranking = FullRanking.of(tiny_split(users=3), Holdout.TEST)
    monkeypatch.setitem(ranking.groups, "cold", np.array([False, True, True]))
    monkeypatch.setattr(FullRanking, "ranks", lambda *_: np.array([1, 3, 101]))
    metrics = ranking.metrics(None)
    assert metrics == pytest.approx({"ndcg@10": 0.5, "recall@100": 2 / 3, "cold_ndcg@10": 0.25})


def test_users_are_limited_and_spread_evenly() -> None:
    """At most so many."""
    assert len(FullRanking.of(tiny_split(users=40), Holdout.TEST, users=7).positives) == 7
    assert len(FullRanking.of(tiny_split(users=5), Holdout.TEST, users=7).positives) == 5
