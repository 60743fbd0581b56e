"""Objectives against their definitions, by hand and by plain torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from training.backbones.negatives import SharedNegatives
from training.backbones.objectives import bce, full_softmax, sampled_softmax


@pytest.fixture
def objective_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs (M=3, D), targets (M,), item table of 6 items."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(3, 4, generator=generator),
        torch.tensor([2, 5, 6]),
        torch.randn(7, 4, generator=generator),
    )


def test_bce_by_hand(objective_inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    """-log sigma(positive) - log(1 - sigma(negative)); where there is no negative, only the first term."""
    outputs, targets, table = objective_inputs
    found = bce(outputs, targets, torch.tensor([1, 0, 3]), table)
    terms = [
        -torch.log(torch.sigmoid(outputs[0] @ table[2])) - torch.log(1 - torch.sigmoid(outputs[0] @ table[1])),
        -torch.log(torch.sigmoid(outputs[1] @ table[5])),
        -torch.log(torch.sigmoid(outputs[2] @ table[6])) - torch.log(1 - torch.sigmoid(outputs[2] @ table[3])),
    ]
    torch.testing.assert_close(found, torch.stack(terms).mean())


def test_sampled_softmax_over_all_items_is_softmax(
    objective_inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """With every item as shared negative, and the target not counted twice, it is the full cross-entropy.

    Each item is expected once among the draws, so there is nothing to correct.
    """
    outputs, targets, table = objective_inputs
    found = sampled_softmax(outputs, targets, torch.arange(1, 7), torch.zeros(6), table)
    expected = torch.nn.functional.cross_entropy(outputs @ table[1:].T, targets - 1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("most_logits", [1, 8, 13, 1000])
def test_full_softmax_is_plain_cross_entropy(most_logits: int) -> None:
    """The loss and both gradients, one position at a time, two at a time, and all at once; scaled by what follows."""
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(5, 3, generator=generator, dtype=torch.float64).float()
    table = torch.randn(4, 3, generator=generator)
    targets = torch.tensor([0, 3, 3, 1, 2])
    results = []
    for objective in (
        lambda x, e: full_softmax(x, targets, e, most_logits),
        lambda x, e: torch.nn.functional.cross_entropy(x @ e.T, targets),
    ):
        x, e = outputs.clone().requires_grad_(), table.clone().requires_grad_()
        loss = objective(x, e)
        (3.0 * loss).backward()
        results.append((loss.detach(), x.grad, e.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_full_softmax_without_gradients() -> None:
    """Only one of the arguments is trained, or none."""
    outputs, table, targets = torch.randn(3, 2), torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 2])
    full_softmax(outputs, targets, table).backward()
    assert outputs.grad is None
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(outputs @ table.T, targets)
        torch.testing.assert_close(full_softmax(outputs, targets, table), expected)


def test_shared_negatives_are_drawn_as_they_say() -> None:
    """Half uniform, half by counts^.75: odds of 16 : 1 in counts are 8 : 1 in the second half."""
    negatives = SharedNegatives(np.array([4, 7]), np.array([16, 1]), popularity_share=0.5)
    drawn, log_expected = negatives.draw(100_000, np.random.default_rng(0))
    odds = {4: 0.25 + 0.5 * 8 / 9, 7: 0.25 + 0.5 / 9}
    for item, share in odds.items():
        assert (drawn == item).mean() == pytest.approx(share, abs=0.005)
        assert np.unique(log_expected[drawn == item]) == pytest.approx(math.log(share * 100_000), abs=1e-5)


def test_sampled_softmax_corrects_for_popularity() -> None:
    """Whatever items are drawn by, many draws give the full cross-entropy; without the correction they do not."""
    generator = torch.Generator().manual_seed(2)
    outputs, table = torch.randn(3, 4, generator=generator), torch.randn(7, 4, generator=generator)
    targets = torch.tensor([2, 5, 6])
    expected = torch.nn.functional.cross_entropy(outputs @ table[1:].T, targets - 1)
    negatives = SharedNegatives(np.arange(1, 7), np.array([1000, 100, 30, 10, 3, 1]), popularity_share=0.8)
    drawn, log_expected = map(torch.from_numpy, negatives.draw(400_000, np.random.default_rng(0)))
    found = sampled_softmax(outputs, targets, drawn, log_expected, table)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    uniform = torch.full_like(log_expected, math.log(400_000 / 6))
    assert abs(sampled_softmax(outputs, targets, drawn, uniform, table) - expected) > 0.1
