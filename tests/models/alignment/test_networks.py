"""The stage-1 networks compute what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.alignment.networks import Alignment, AlignmentConfig, Standardisation


@pytest.fixture
def alignment() -> Alignment:
    torch.manual_seed(0)
    made = Alignment(AlignmentConfig(cf_size=3, text_size=5, joint_size=4))
    made.item_scale.fit(torch.randn(20, 3) * 0.1 + 2.0)
    made.text_scale.fit(torch.randn(20, 5) * 0.05)
    return made.eval()


def test_encoders_are_one_linear_layer_and_a_sigmoid(alignment: Alignment) -> None:
    """e = sigma(W (E - mean) / spread + b), in NumPy."""
    vector = torch.tensor([1.9, 2.1, 2.0])
    weights = {name: tensor.numpy() for name, tensor in alignment.state_dict().items()}
    scaled = (vector.numpy() - weights["item_scale.mean"]) / weights["item_scale.spread"]
    logits = weights["item_encoder.0.weight"] @ scaled + weights["item_encoder.0.bias"]
    np.testing.assert_allclose(alignment.encode_items(vector).detach().numpy(), 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_shapes_and_ranges(alignment: Alignment) -> None:
    """Both encoders end in the same space, inside (0, 1); decoders lead back to their own spaces."""
    items = alignment.encode_items(2.0 + 0.1 * torch.randn(2, 7, 3))
    texts = alignment.encode_texts(0.05 * torch.randn(2, 7, 5))
    assert items.shape == texts.shape == (2, 7, 4)
    assert 0 < items.min() < items.max() < 1
    assert alignment.decode_items(texts).shape == (2, 7, 3)
    assert alignment.text_decoder(items).shape == (2, 7, 5)


def test_decoded_vectors_are_in_the_units_of_the_inputs(alignment: Alignment) -> None:
    """A decoder that says nothing decodes to the mean of what was seen, not to zero."""
    with torch.no_grad():
        alignment.item_decoder.weight.zero_()
        alignment.item_decoder.bias.zero_()
    torch.testing.assert_close(alignment.decode_items(torch.rand(4)), alignment.item_scale.mean)


def test_standardisation_by_hand() -> None:
    """Means 1 and 10; deviations -1, 1, -3, 3 have a root mean square of sqrt(5)."""
    scale = Standardisation(2)
    scale.fit(torch.tensor([[0.0, 7.0], [2.0, 13.0]]))
    expected = torch.tensor([[1.0, -3.0]]) / 5**0.5
    torch.testing.assert_close(scale(torch.tensor([[2.0, 7.0]])), expected)
    torch.testing.assert_close(scale.inverse(expected), torch.tensor([[2.0, 7.0]]))


def test_inner_products_keep_their_geometry() -> None:
    """One spread for all coordinates: angles between centred vectors do not change."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(30, 4, generator=generator) * torch.tensor([1.0, 5.0, 0.1, 2.0])
    scale = Standardisation(4)
    scale.fit(vectors)
    centred = vectors - vectors.mean(dim=0)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(scale(vectors)[:15], scale(vectors)[15:]), cosine(centred[:15], centred[15:]))


def test_constant_vectors_do_not_divide_by_zero() -> None:
    """A table without spread stays finite."""
    scale = Standardisation(2)
    scale.fit(torch.ones(3, 2))
    assert torch.isfinite(scale(torch.ones(1, 2))).all()
