"""Items by their words: encoded by a vocabulary and two tables, and nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models.alignment.words import WordEncoder, weigh, with_words
from models.errors import ConfigError

ENCODER = WordEncoder(["blue", "fox", "red"], np.asarray([1.0, 2.0, 3.0]), np.eye(3, 2, dtype=np.float32))


def test_a_word_weighs_by_count_and_rarity() -> None:
    """(1 + ln count) * rarity of each distinct word that is known, whatever its case, at unit length."""
    words, weights = weigh("Red fox, red RED cat", {"blue": 0, "fox": 1, "red": 2}, ENCODER.rarities)
    red, fox = 3 * (1 + math.log(3)), 2.0
    length = math.hypot(red, fox)
    assert dict(zip(words.tolist(), weights.tolist(), strict=True)) == pytest.approx({2: red / length, 1: fox / length})


def test_texts_are_sums_of_their_words() -> None:
    """Blue counts 1 in the first direction, fox 2 in the second, red in none; a text without known words is nowhere."""
    vectors = ENCODER.encode(["blue fox", "blue", "red fox", "green", ""])
    expected = [[1 / 5**0.5, 2 / 5**0.5], [1, 0], [0, 2 / 13**0.5], [0, 0], [0, 0]]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert vectors.dtype == np.float32


def test_they_stand_beside_sentence_vectors() -> None:
    """Sentences first; without words those are all."""
    sentences = torch.tensor([[5.0], [6.0]])
    assert with_words(sentences, ENCODER, ["blue", "fox"]).tolist() == [[5, 1, 0], [6, 0, 1]]
    assert with_words(sentences, None, ["blue", "fox"]) is sentences


def test_what_is_saved_encodes_alike(tmp_path: Path) -> None:
    """Where nothing was saved there are no words; tables of another vocabulary are refused."""
    assert WordEncoder.load(tmp_path) is None
    ENCODER.save(tmp_path)
    loaded = WordEncoder.load(tmp_path)
    assert loaded is not None
    assert np.array_equal(loaded.encode(["blue red fox fox"]), ENCODER.encode(["blue red fox fox"]))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    (tmp_path / "words.json").write_text(json.dumps(["blue"]))
    with pytest.raises(ConfigError, match="do not fit"):
        WordEncoder.load(tmp_path)
