"""The loss, and the forward pass that it trains through."""

import numpy as np
import pytest
import torch

from models.scoring.opt_training import PackedReader
from models.scoring.packing import child_logits, hidden_states
from tests.training.pretraining.conftest import SHORT
from training.pretraining.batch import collate
from training.pretraining.mixture import Mixture
from training.pretraining.objective import FLAT, Objective
from training.pretraining.pretrain import draw


@torch.no_grad()
def test_the_fast_forward_pass_is_the_kernels(constructed, factory):
    """At every node and text position it gives what `hidden_states` gives."""
    batch = collate(draw(factory, Mixture(explanations=0.3), 6, seed=0))
    rows = torch.cat([batch.packed.node_rows, batch.text_rows_X])
    columns = torch.cat([batch.packed.node_columns, batch.text_columns_X])
    expected = hidden_states(constructed, batch.packed, batch.soft_tokens_S_H)[rows, columns]
    actual = PackedReader(constructed)(batch.packed, batch.soft_tokens_S_H, rows, columns)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_the_loss_is_the_divergence_at_every_node(constructed, factory):
    """In fp32 and without its side terms it is sum of sqrt(reach) * KL, worked out with NumPy."""
    examples = draw(factory, Mixture(explanations=0.0), 5, seed=1)
    batch = collate(examples)
    with torch.no_grad():
        loss = Objective(constructed, 0.0, 0.0, 0.0, torch.float32)(batch).item()
        hidden = hidden_states(constructed, batch.packed, batch.soft_tokens_S_H)
        logits = child_logits(constructed, batch.packed, hidden).double().numpy()
    expected, node = 0.0, 0
    for example in examples:
        for target, reach in zip(*example.node_targets(), strict=True):
            row = logits[node, : len(target)]
            log_q = row - row.max() - np.log(np.exp(row - row.max()).sum())
            expected += np.sqrt(reach) * sum(p * (np.log(p) - q) for p, q in zip(target, log_q, strict=True) if p > 0)
            node += 1
    assert loss == pytest.approx(expected / len(examples), rel=1e-3)


def test_the_order_counts_flattened(constructed, factory):
    """With a weight it adds FLAT squared times the divergence at temperature FLAT, worked out with NumPy."""
    examples = [example for example in draw(factory, SHORT, 8, seed=1) if len(example.trie.branches) == 1]
    batch = collate(examples)
    with torch.no_grad():
        losses = [Objective(constructed, 0.0, weight, 0.0, torch.float32)(batch).item() for weight in (0.0, 0.5)]
        hidden = hidden_states(constructed, batch.packed, batch.soft_tokens_S_H)
        logits = child_logits(constructed, batch.packed, hidden).double().numpy()
    expected = 0.0
    for row, example in zip(logits, examples, strict=True):
        target = example.node_targets()[0][0] ** (1 / FLAT)
        target /= target.sum()
        q = np.exp((row[: len(target)] - row[: len(target)].max()) / FLAT)
        expected += FLAT**2 * float((target * np.log(target / (q / q.sum()))).sum())
    assert losses[1] - losses[0] == pytest.approx(0.5 * expected / len(examples), rel=1e-3)
