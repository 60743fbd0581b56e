"""Where an item stands."""

from __future__ import annotations

import torch

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.placement import place


def test_trained_items_stand_by_their_vectors_and_others_by_their_texts() -> None:
    """E_i and e_i for the first two of three items, f_I_dec(q_i) and q_i for the last; F_I reads both side by side."""
    torch.manual_seed(0)
    alignment = Alignment(AlignmentConfig(cf_size=4, text_size=6, joint_size=5)).eval()
    items, texts = torch.randn(3, 4), torch.randn(3, 6)
    found = place(alignment, texts, items, torch.tensor([True, True, False]))
    e, q = alignment.encode_items(items), alignment.encode_texts(texts)
    assert torch.equal(found.cf_vectors[:2], items[:2])
    torch.testing.assert_close(found.cf_vectors[2], alignment.decode_items(q)[2])
    torch.testing.assert_close(found.joint_item, torch.stack([e[0], e[1], q[2]]))
    torch.testing.assert_close(found.token_item, torch.cat([found.joint_item, q], dim=1))
    torch.testing.assert_close(found.token_text, torch.cat([q, q], dim=1))


def test_a_new_item_is_placed_alone_as_among_others() -> None:
    """From its text only, whatever stands in the row of its vector."""
    torch.manual_seed(0)
    alignment = Alignment(AlignmentConfig(cf_size=4, text_size=6, joint_size=5)).eval()
    items, texts = torch.randn(3, 4), torch.randn(3, 6)
    together = place(alignment, texts, items, torch.tensor([True, True, False]))
    alone = place(alignment, texts[2:], torch.zeros(1, 4), torch.tensor([False]))
    for name, table in vars(alone).items():
        torch.testing.assert_close(table[0], getattr(together, name)[2])
