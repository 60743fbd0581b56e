"""Text vectors: encoded once, under a name that tells whether they still fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.alignment.text_encoder import TextEncoder, catalogue_texts
from models.backbones.hybrid import HybridConfig
from models.catalogue import Catalogue
from tests.tiny_encoder import retrain, write_tiny_encoder
from training.backbones import texts
from training.backbones.config import BackboneTrainingConfig
from training.backbones.texts import backbone_inputs, item_text_vectors, item_words


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    return write_tiny_encoder(tmp_path, ["title", "red", "blue"])


def catalogue(*titles: str) -> Catalogue:
    return Catalogue(titles, titles, [""] * len(titles), [()] * len(titles), [1] * len(titles))


def test_they_are_what_the_encoder_makes_of_the_texts(encoder: str, tmp_path: Path) -> None:
    """Row 0 is zeros."""
    items = catalogue("red", "blue")
    found = item_text_vectors(items, HybridConfig(num_items=2, text_encoder=encoder), tmp_path / "run")
    own = TextEncoder(encoder)
    torch.testing.assert_close(found[1:], own.encode(own.tokenize(catalogue_texts(items)))[1:])
    assert not found[0].any()


def test_they_are_encoded_once(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again for other texts or another reading of them, but not for the same."""
    config = HybridConfig(num_items=2, text_encoder=encoder)
    first = item_text_vectors(catalogue("red", "blue"), config, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(texts, "TextEncoder", None)
        assert torch.equal(item_text_vectors(catalogue("red", "blue"), config, tmp_path), first)
    other = item_text_vectors(catalogue("blue", "red"), config, tmp_path)
    torch.testing.assert_close(other[1], first[2])
    item_text_vectors(catalogue("red", "blue"), config.model_copy(update={"max_text_tokens": 3}), tmp_path)
    assert len(list(tmp_path.glob("texts-*.safetensors"))) == 3


def test_an_encoder_that_was_trained_again_encodes_anew(encoder: str, tmp_path: Path) -> None:
    """In the same folder: the vectors are the new one's, and a backbone that read the old ones has other inputs."""
    items, config = catalogue("red", "blue"), HybridConfig(num_items=2, text_encoder=encoder)
    backbone = BackboneTrainingConfig(kind="hybrid", settings={"text_encoder": encoder})
    first, before = item_text_vectors(items, config, tmp_path / "run"), backbone_inputs(backbone)
    retrain(encoder)
    found, own = item_text_vectors(items, config, tmp_path / "run"), TextEncoder(encoder)
    torch.testing.assert_close(found[1:], own.encode(own.tokenize(catalogue_texts(items)))[1:])
    assert not torch.allclose(found, first, atol=0.01)
    assert backbone_inputs(backbone) != before
    assert backbone_inputs(BackboneTrainingConfig(kind="hybrid")) == {}


def test_words_stand_beside_the_vectors(encoder: str, tmp_path: Path) -> None:
    """As many directions as there are, fitted once; the vectors of sentences are as without them."""
    items = catalogue("red one", "red two", "blue one")
    plain = HybridConfig(num_items=3, text_encoder=encoder)
    config = plain.model_copy(update={"word_directions": 2})
    sentences, found = (item_text_vectors(items, settings, tmp_path) for settings in (plain, config))
    assert torch.equal(found[:, : sentences.shape[1]], sentences)
    words = found[:, sentences.shape[1] :]
    assert words.shape == (4, 2)
    assert not words[0].any()
    assert float(words[1:].square().sum(dim=1).mean()) == pytest.approx(1.0)
    saved = item_words(items, config, tmp_path)
    assert saved is not None
    assert torch.equal(torch.from_numpy(saved.encode(catalogue_texts(items))), words)
    assert item_words(items, plain, tmp_path) is None
