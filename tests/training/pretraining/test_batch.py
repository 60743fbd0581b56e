"""Batches keep to their budget and ask for all that is known."""

import torch

from training.pretraining.batch import bucketed, collate
from training.pretraining.mixture import Mixture
from training.pretraining.pretrain import draw


def test_batches_keep_to_their_budget(factory):
    """No batch is larger than asked, and no prompt is lost."""
    examples = draw(factory, Mixture(), 60, seed=4)
    batches = bucketed(examples, 2048)
    assert sum(map(len, batches)) == 60
    assert all(len(batch) * max(e.length for e in batch) <= 2048 for batch in batches if len(batch) > 1)


def test_a_batch_asks_for_every_branching_node_and_every_word_of_a_sentence(factory):
    """Targets lie at the packed nodes, and text positions stand right before their tokens."""
    examples = draw(factory, Mixture(explanations=0.4), 12, seed=0)
    batch = collate(examples)
    assert len(batch.reach_M) == len(batch.targets_M_C) == sum(len(e.trie.branches) for e in examples)
    torch.testing.assert_close(batch.targets_M_C.sum(dim=1), torch.ones(len(batch.reach_M)))
    assert len(batch.text_targets_X) == sum(example.written for example in examples) > 0
    following = batch.packed.token_ids_B_L[batch.text_rows_X, batch.text_columns_X + 1]
    assert torch.equal(following, batch.text_targets_X)
