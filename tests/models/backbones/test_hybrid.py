"""The hybrid: vectors by id and by text, and a saved one that needs no texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.backbones import create_backbone, load_backbone, represent_all, save_backbone
from models.backbones.hybrid import Hybrid, HybridConfig
from models.backbones.sasrec import SASRec, SASRecConfig

ITEMS, SIZE, TEXT = 6, 4, 3
TRAINED = torch.tensor([False, True, True, True, True, False, False])


@pytest.fixture
def texts() -> torch.Tensor:
    return torch.randn(ITEMS + 1, TEXT, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def hybrid(texts: torch.Tensor) -> Hybrid:
    torch.manual_seed(0)
    config = HybridConfig(num_items=ITEMS, embedding_size=SIZE, text_size=TEXT, id_dropout=0.5, dropout=0.0)
    made = Hybrid(config).eval()
    made.read_texts(texts, TRAINED)
    return made


def test_items_are_their_ids_and_their_texts(hybrid: Hybrid, texts: torch.Tensor) -> None:
    """E_i = id_i + A q_i, without the id for items 5 and 6, which have no training interactions; row 0 is zeros."""
    ids, adapter = hybrid.items.weight, hybrid.adapter.weight
    expected = [torch.zeros(SIZE), *(ids[item] + adapter @ texts[item] for item in range(1, 5))]
    expected += [adapter @ texts[item] for item in (5, 6)]
    torch.testing.assert_close(hybrid.item_vectors, torch.stack(expected))
    torch.testing.assert_close(hybrid.vectors_of(torch.tensor([0, 6, 2])), torch.stack(expected)[[0, 6, 2]])
    torch.testing.assert_close(hybrid.vectors_of_texts(texts[5:]), torch.stack(expected)[5:])


def test_the_texts_given_are_left_as_they_are(hybrid: Hybrid, texts: torch.Tensor) -> None:
    """Row 0 counts as zeros without being overwritten."""
    assert texts[0].all()
    assert not hybrid.item_vectors[0].any()


def test_id_dropout_leaves_some_items_to_their_texts(hybrid: Hybrid, texts: torch.Tensor) -> None:
    """In training half of the time, drawn anew each time; never otherwise."""
    items, by_text = torch.arange(1, 5), hybrid.vectors_of_texts(texts[1:5])
    whole = hybrid.vectors_of(items)
    hybrid.train()
    torch.manual_seed(0)
    drops = []
    for _ in range(400):
        drawn = hybrid.vectors_of(items)
        dropped = torch.isclose(drawn, by_text).all(dim=1)
        torch.testing.assert_close(drawn[~dropped], whole[~dropped])
        drops.append(dropped)
    assert torch.stack(drops).float().mean(dim=0) == pytest.approx(torch.full((4,), 0.5), abs=0.1)


def test_a_saved_hybrid_needs_no_texts(hybrid: Hybrid, texts: torch.Tensor, tmp_path: Path) -> None:
    """Saved amid training, without dropout: same items, same users, and new items still have their place."""
    hybrid.train()
    save_backbone(hybrid, tmp_path)
    assert hybrid.training
    loaded = load_backbone(tmp_path)
    hybrid.eval()
    assert isinstance(loaded, Hybrid)
    assert loaded.texts is None
    assert torch.equal(loaded.item_vectors, hybrid.item_vectors)
    history = torch.tensor([[1, 6, 2]])
    assert torch.equal(loaded.represent(history), hybrid.represent(history))
    assert torch.equal(loaded.vectors_of_texts(texts), hybrid.vectors_of_texts(texts))


def test_gradients_reach_ids_and_adapter(hybrid: Hybrid) -> None:
    """Of the items gathered, and of no others: item 5 has no id to train."""
    hybrid.vectors_of(torch.tensor([0, 2, 5])).sum().backward()
    assert hybrid.items.weight.grad.any(dim=1).tolist() == [False, False, True, False, False, False, False]
    assert hybrid.adapter.weight.grad.any()


def test_its_encoder_is_that_of_sasrec(hybrid: Hybrid) -> None:
    """SASRec with the same weights represents users alike, if it reads items from the hybrid's table."""
    sasrec = SASRec(SASRecConfig(num_items=ITEMS, embedding_size=SIZE, dropout=0.0)).eval()
    shared = {name: tensor for name, tensor in hybrid.weights().items() if name != "adapter.weight"}
    sasrec.load_state_dict(shared)
    histories = [torch.tensor(items).numpy() for items in ([1, 5], [2], [3, 4, 6])]
    assert torch.equal(represent_all(sasrec, histories), represent_all(hybrid, histories))


def test_only_a_reader_of_texts_places_by_text() -> None:
    """SASRec does not pretend to."""
    sasrec = create_backbone("sasrec", {"num_items": 3})
    assert not sasrec.reads_texts
    assert sasrec.vectors_of_texts(torch.zeros(1, 3)) is None
    assert create_backbone("hybrid", {"num_items": 3}).reads_texts
