"""Items by their words: encoded by a vocabulary and two tables, and nothing else."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from models.alignment.words import WordEncoder, weigh, with_words, words_of
from models.errors import ConfigError

ENCODER = WordEncoder(["blue", "fox", "red"], np.asarray([1.0, 2.0, 3.0]), np.eye(3, 2, dtype=np.float32))


UNSEGMENTED = (
    *("CJK", "IDEOGRAPHIC", "HANGZHOU", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "COMBINING KATAKANA"),
    *("THAI", "LAO", "KHMER", "MYANMAR"),
)
"""How Unicode's names of their characters begin."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("无线鼠标", ["无线", "线鼠", "鼠标"]),
        ("Apple iPhone15手机壳, 红", ["apple", "iphone15", "手机", "机壳", "红"]),
        ("ゲーム機", ["ゲー", "ーム", "ム機"]),
        ("ที่นอน", ["ที", "ี่", "่น", "นอ", "อน"]),
        ("ကား ၁၂", ["ကာ", "ား", "၁၂"]),
        ("무선 마우스", ["무선", "마우스"]),
        ("Привет, מחשב نور", ["привет", "מחשב", "نور"]),
    ],
)
def test_scripts_without_spaces_are_cut_by_pairs_of_letters(text: str, words: list[str]) -> None:
    """Worked out by hand; marks go with their letters, digits are words, and Hangul has spaces."""
    assert words_of(text) == words


def test_other_text_has_the_words_it_always_had() -> None:
    """By `\\w+`, beside every character of the scripts that have spaces, so that stored vocabularies fit."""
    names = {character: unicodedata.name(character, "") for character in map(chr, range(1 << 16))}
    kept = [character for character, name in names.items() if name and not name.startswith(UNSEGMENTED)]
    for text in ("Fox's 2nd USB-C cable_3m, Caf\u00e9 na\u00efve \u0130X", "a".join(kept), " ".join(kept)):
        assert words_of(text) == re.findall(r"\w+", text.lower())


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
