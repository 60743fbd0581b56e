"""Texts permuted among items: what comes from texts moves, what comes from interactions stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.placement import place
from models.backbones import Backbone, create_backbone
from models.backbones.hybrid import Hybrid
from tests.tiny import CF_SIZE, JOINT_SIZE, tiny_contents, tiny_split
from training.allmrec.permuted import permuted_aligned, permuted_catalogue, permuted_model, text_order
from training.allmrec.stage1.aligned import Aligned

SIZES = AlignmentConfig(cf_size=CF_SIZE, text_size=5, joint_size=JOINT_SIZE // 2)
SPLIT = tiny_split()
TRAINED = SPLIT.catalogue.trained


def aligned_with(kind: str) -> Aligned:
    """Stage 1 untrained, on a random backbone of that kind."""
    torch.manual_seed(0)
    settings = {"num_items": 30, "embedding_size": CF_SIZE, "max_length": 10}
    backbone = create_backbone(kind, settings | ({"text_size": 5} if kind == "hybrid" else {})).eval()
    alignment, texts = Alignment(SIZES).eval(), torch.randn(31, 5)
    texts[0] = 0
    known = torch.ones(31, dtype=torch.bool) if backbone.reads_texts else torch.from_numpy(TRAINED)
    placement = place(alignment, texts, backbone.item_vectors.detach(), known)
    return Aligned(backbone, alignment, torch.nn.Module(), texts, placement)


def test_every_text_finds_another_item() -> None:
    """A permutation of all items, the same for a seed; padding keeps its place."""
    order = text_order(30, seed=0)
    assert order[0] == 0
    assert sorted(order.tolist()) == list(range(31))
    assert (order != np.arange(31)).sum() > 20
    assert np.array_equal(order, text_order(30, seed=0))


def test_titles_move_and_interactions_stay() -> None:
    order = text_order(30, seed=0)
    found = permuted_catalogue(SPLIT.catalogue, order)
    assert found.titles == [SPLIT.catalogue.titles[item] for item in order]
    assert found.item_ids == SPLIT.catalogue.item_ids
    assert np.array_equal(found.interactions, SPLIT.catalogue.interactions)


def test_trained_items_keep_their_cf_vectors_and_unseen_ones_do_not() -> None:
    """An unseen item has only its text to be placed by: it now stands where the other text's item would."""
    aligned, order = aligned_with("sasrec"), text_order(30, seed=0)
    found = permuted_aligned(aligned, TRAINED, order)
    before, after = aligned.placement, found.placement
    assert torch.equal(after.cf_vectors[TRAINED], before.cf_vectors[TRAINED])
    torch.testing.assert_close(after.cf_vectors[28:], before.decoded_text[order[28:]])
    torch.testing.assert_close(after.joint_text[1:], before.joint_text[order[1:]])
    assert found.backbone is aligned.backbone


def test_a_hybrid_keeps_what_ids_say_and_moves_what_texts_say() -> None:
    """E_i = id_i + A q_i becomes id_i + A q_j; of the one that was given nothing changes."""
    aligned, order = aligned_with("hybrid"), text_order(30, seed=0)
    backbone, q = aligned.backbone, torch.randn(31, 5)
    assert isinstance(backbone, Hybrid)
    before = backbone.item_vectors.detach().clone()
    found = permuted_aligned(aligned, TRAINED, order, lambda _: q)
    by_text = q @ backbone.adapter.weight.detach().T
    expected = before - by_text + by_text[order]
    torch.testing.assert_close(found.backbone.item_vectors[1:], expected[1:])
    torch.testing.assert_close(found.placement.cf_vectors[1:], expected[1:])
    assert not found.backbone.item_vectors[0].any()
    assert torch.equal(backbone.item_vectors, before)


def test_a_second_backbone_has_the_texts_of_others_too() -> None:
    """As it reads them; one that reads none, or is told none, stays as it is."""
    order, q = text_order(30, seed=0), torch.randn(31, 5)
    aligned = aligned_with("hybrid")
    second = aligned_with("hybrid").backbone
    model = replace(tiny_contents(SPLIT), second=second)
    asked = []

    def texts(backbone: Backbone) -> torch.Tensor:
        asked.append(backbone)
        return q

    found = permuted_model(model, aligned, order, texts).second
    assert asked == [second]
    moved = (q[order] - q) @ second.adapter.weight.detach().T
    torch.testing.assert_close(found.item_vectors[1:], second.item_vectors[1:] + moved[1:])
    assert permuted_model(model, aligned, order).second is second
    by_ids = replace(model, second=aligned_with("sasrec").backbone)
    assert permuted_model(by_ids, aligned, order, texts).second is by_ids.second


def test_the_model_is_made_of_it() -> None:
    """Projections and histories are as they were; the index searches the new vectors."""
    model, order = tiny_contents(SPLIT), text_order(30, seed=0)
    aligned = permuted_aligned(aligned_with("sasrec"), TRAINED, order)
    found = permuted_model(model, aligned, order)
    assert found.projector is model.projector
    assert found.histories is model.histories
    assert found.backbone is aligned.backbone
    assert torch.equal(found.decoded_item, aligned.placement.decoded_item)
    assert torch.equal(found.decoded_text, aligned.placement.decoded_text)
    query = aligned.placement.cf_vectors[29:30].numpy()
    items, scores = found.index.search(query, 30)
    vectors = aligned.placement.cf_vectors.numpy()
    np.testing.assert_allclose(scores[0], vectors[items[0]] @ query[0], rtol=1e-4, atol=1e-5)
