"""Items by their words: TF-IDF weights, reduced to the directions in which a catalogue's texts differ most.

A sentence encoder sees two sizes of one screw, or two parts of one series, as nearly the same; words tell them apart.
A new item needs nothing but its text and the catalogue's vocabulary: no library, and nothing is pickled. They are
fitted in `training.backbones.words`.

Axes: n texts, V words, W directions.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from models.errors import ConfigError
from models.files import written_atomically

UNSEGMENTED = (
    r"\u3005\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    r"\u3041-\u3096\u3099\u309a\u309d-\u309f"  # Hiragana
    r"\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Katakana
    r"\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    r"\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf"  # Lao
    r"\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    r"\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f"  # Myanmar
)
"""Letters and marks of scripts that put no spaces between words, as ranges of a character class; digits are not
among them, and Hangul is not, which has spaces."""
WORD = re.compile(rf"(?P<run>[{UNSEGMENTED}]+)|[^\W{UNSEGMENTED}]+")
VOCABULARY_FILE, TABLES_FILE = "words.json", "words.safetensors"


@dataclass(frozen=True)
class WordEncoder:
    """The words of one catalogue.

    Attributes:
        vocabulary: V words, as `words_of` finds them.
        rarities: (V,) inverse document frequencies.
        directions: (V, W) what each word says; at such a length that all items' vectors have a mean square of 1.
    """

    vocabulary: Sequence[str]
    rarities: np.ndarray
    directions: np.ndarray

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Word to its row."""
        return {word: number for number, word in enumerate(self.vocabulary)}

    @property
    def size(self) -> int:
        """W."""
        return int(self.directions.shape[1])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(n, W) float32; zeros where a text has no word of the vocabulary.

        A text that says little of what distinguishes this catalogue's items is near zero.
        """
        vectors_n_W = np.zeros((len(texts), self.size), dtype=np.float32)
        for row, text in enumerate(texts):
            words, weights = weigh(text, self.numbers, self.rarities)
            vectors_n_W[row] = weights @ self.directions[words]
        return vectors_n_W

    def save(self, directory: Path) -> None:
        """Write `words.json` and `words.safetensors`."""
        directory.mkdir(parents=True, exist_ok=True)
        tables = {"rarities": self.rarities, "directions": self.directions}
        save_file({name: torch.from_numpy(table) for name, table in tables.items()}, directory / TABLES_FILE)
        with written_atomically(directory / VOCABULARY_FILE) as partial:
            partial.write_text(json.dumps(list(self.vocabulary), ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> WordEncoder | None:
        """What `save` wrote; None if it wrote nothing there.

        Raises:
            ConfigError: the files do not fit each other.
        """
        if not (directory / VOCABULARY_FILE).is_file():
            return None
        vocabulary = json.loads((directory / VOCABULARY_FILE).read_text(encoding="utf-8"))
        tables = {name: tensor.numpy() for name, tensor in load_file(directory / TABLES_FILE).items()}
        if len(vocabulary) != len(tables["directions"]):
            raise ConfigError(f"{directory}: {VOCABULARY_FILE} and {TABLES_FILE} do not fit each other")
        return cls(vocabulary, **tables)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, in their order; where a script has no spaces, pairs of neighbouring letters.

    Chinese, Japanese, Thai, Lao, Khmer and Burmese are cut by their character bigrams, the usual index terms where
    nobody segments (Manning, Raghavan and Schuetze 2008, section 2.2.1); a letter alone is itself. All other text has
    the words of `\\w+`.
    """
    words: list[str] = []
    for match in WORD.finditer(text.lower()):
        word = match.group()
        pairs = [word[start : start + 2] for start in range(len(word) - 1)] if match["run"] else []
        words += pairs or [word]
    return words


def weigh(text: str, numbers: dict[str, int], rarities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the distinct known words of a text, and their weights `(1 + ln count) * rarity` at unit length."""
    counts = Counter(number for word in words_of(text) if (number := numbers.get(word)) is not None)
    words = np.fromiter(counts.keys(), dtype=np.int64, count=len(counts))
    times = np.fromiter(counts.values(), dtype=np.float64, count=len(counts))
    weights = (1.0 + np.log(times)) * rarities[words]
    return words, weights / max(float(np.linalg.norm(weights)), 1e-9)


def with_words(sentences_n_T: torch.Tensor, words: WordEncoder | None, texts: Sequence[str]) -> torch.Tensor:
    """(n, d_T + W) what a hybrid backbone reads of n texts: their sentence vectors (n, d_T), and beside them words."""
    if words is None:
        return sentences_n_T
    return torch.cat([sentences_n_T, torch.from_numpy(words.encode(texts)).to(sentences_n_T)], dim=1)
