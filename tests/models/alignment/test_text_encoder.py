"""Item text and its encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.alignment.text_encoder import EMBEDDED, TextEncoder, catalogue_texts, encoder_fingerprint, item_text
from models.catalogue import Catalogue
from models.errors import ConfigError
from tests.tiny_encoder import halve, retrain, write_tiny_encoder

TEXTS = ["Title: red fox", "fox", "Title: red red red red red red fox fox", ""]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    directory = tmp_path_factory.mktemp("encoder")
    return TextEncoder(write_tiny_encoder(directory, ["title", ":", "red", "fox"]), max_tokens=6)


def test_text_says_what_is_known() -> None:
    """Title and description as in the paper, the item's categories between them; nothing of what is not known."""
    assert item_text("Alien", "In space.") == "Title: Alien, Description: In space."
    assert item_text("Alien") == "Title: Alien"
    assert item_text("Alien", "In space.", ("Horror", "Sci-Fi")) == (
        "Title: Alien, Categories: Horror, Sci-Fi, Description: In space."
    )


def test_a_catalogue_has_a_text_a_row() -> None:
    """N+1 texts, that of the padding row empty."""
    catalogue = Catalogue(["a", "b"], ["A", "B"], ["", "second"], [("x", "y"), ()], [1, 0])
    assert catalogue_texts(catalogue) == ["", "Title: A, Categories: x, y", "Title: B, Description: second"]
    assert catalogue_texts(catalogue, categories=False) == ["", "Title: A", "Title: B, Description: second"]


def test_tokens_are_cut(encoder: TextEncoder) -> None:
    """At most six tokens with the special ones, which are [CLS] = 2 and [SEP] = 3."""
    assert encoder.tokenize(TEXTS) == [[2, 4, 5, 6, 7, 3], [2, 7, 3], [2, 4, 5, 6, 6, 3], [2, 3]]


def test_a_vector_does_not_depend_on_the_batch(encoder: TextEncoder) -> None:
    """Encoding by length in batches of two gives what the library itself gives text by text, in the texts' order."""
    vectors = encoder.encode(encoder.tokenize(TEXTS), batch_size=2)
    assert vectors.shape == (4, encoder.size)
    encoder.model.max_seq_length = 6
    expected = torch.stack([encoder.model.encode(text, convert_to_tensor=True) for text in TEXTS])
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)


def test_weights_of_half_precision_are_trained_in_full(tmp_path: Path) -> None:
    """As hubs have them: in fp16 an optimizer's steps soon are no numbers."""
    folder = Path(write_tiny_encoder(tmp_path, ["red", "fox"]))
    halve(folder)
    assert {weights.dtype for weights in TextEncoder(str(folder)).parameters()} == {torch.float32}


def test_autocast_is_close(encoder: TextEncoder) -> None:
    """bfloat16 keeps about three digits, and the result is fp32 all the same."""
    tokens = encoder.tokenize(TEXTS)
    fast = encoder.encode(tokens, autocast=True)
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast, encoder.encode(tokens), atol=0.02, rtol=0)


def test_encoding_leaves_the_mode_as_it_was(encoder: TextEncoder) -> None:
    """Dropout is off while encoding, and on again afterwards if it was."""
    tokens = encoder.tokenize(TEXTS)
    encoder.train()
    assert torch.equal(encoder.encode(tokens), encoder.encode(tokens))
    assert encoder.training
    encoder.eval()


def test_gradients_reach_the_weights(encoder: TextEncoder) -> None:
    """Stage 1 can fine-tune it."""
    encoder([[2, 7, 3]]).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())
    encoder.zero_grad()


def test_saved_weights_load_under_the_old_name(encoder: TextEncoder, tmp_path: Path) -> None:
    """The fine-tuned weights come from the folder, the name stays what the user chose, the library can load it."""
    with torch.no_grad():
        next(encoder.parameters()).add_(0.1)
    encoder.save(tmp_path / "saved")
    loaded = TextEncoder(encoder.name, max_tokens=6, weights=tmp_path / "saved")
    assert loaded.name == encoder.name
    tokens = encoder.tokenize(TEXTS)
    torch.testing.assert_close(loaded.encode(tokens), encoder.encode(tokens))
    assert not list((tmp_path / "saved").rglob("*.bin"))


def test_an_encoder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(ConfigError, match=r"text encoder '.*nothing' cannot be loaded"):
        TextEncoder(str(tmp_path / "nothing"))


def test_the_embedded_encoder_knows_meaning() -> None:
    """The installed MiniLM puts a film about sharks nearer to one about the sea than to one about spreadsheets."""
    encoder = TextEncoder(EMBEDDED)
    shark, sea, sheet = encoder.encode(
        encoder.tokenize(["Title: The shark attack", "Title: Danger in the ocean", "Title: Accounting software"])
    )
    assert encoder.size == 384
    assert shark @ sea > shark @ sheet + 0.1


def test_an_encoder_is_known_by_its_files(tmp_path: Path) -> None:
    """A folder by all that is in it, wherever it stands; a name by itself."""
    first, second = (write_tiny_encoder(tmp_path / name, ["title", ":"]) for name in ("first", "second"))
    before = encoder_fingerprint(first)
    assert encoder_fingerprint(second) == before
    retrain(first)
    assert encoder_fingerprint(first) != before
    assert len({before, encoder_fingerprint(EMBEDDED), encoder_fingerprint("someone/encoder")}) == 3
