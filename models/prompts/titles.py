"""Titles as tokens, as they stand in quotes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from models.prompts.anchor import anchor_of, anchors_of, tokenise

QUOTE = '"'
CURLY = re.compile("[\u201c\u201d]")
LONGEST_TOLD = 200
"""Characters of a title in a sentence for people."""


class TitleTokens:
    """Titles tokenised once.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
        titles: any strings, written `as_read`.
        max_tokens: longer titles are cut.
    """

    def __init__(self, tokenizer: Any, titles: Iterable[str], max_tokens: int) -> None:
        encoded = encode_plain(tokenizer, [as_read(tokenizer, title) for title in titles])
        self._distinct = len({tuple(ids) for ids in encoded})
        self._tokens = [ids[:max_tokens] for ids in encoded]

    def __getitem__(self, item: int) -> list[int]:
        """The tokens of title `item`."""
        return self._tokens[item]

    def __len__(self) -> int:
        """The number of titles."""
        return len(self._tokens)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) tokens of every title."""
        return np.asarray([len(tokens) for tokens in self._tokens], dtype=np.int64)

    @property
    def alike(self) -> int:
        """How many titles that differ are the same once they are cut."""
        return self._distinct - len({tuple(tokens) for tokens in self._tokens})

    def of(self, items: Iterable[int]) -> list[list[int]]:
        """The tokens of several titles."""
        return [self._tokens[item] for item in items]


def as_quoted(title: str) -> str:
    """A title as it is quoted: whitespace is collapsed, and `"` becomes `'`, so that no title can end its own quote."""
    return " ".join(title.replace(QUOTE, "'").split())


def as_told(title: str) -> str:
    """A title `as_quoted` in a sentence for people, with no quotes of either kind: of a very long one its beginning."""
    text = CURLY.sub("'", as_quoted(title))
    return text if len(text) <= LONGEST_TOLD else text[: LONGEST_TOLD - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def as_read(tokenizer: Any, title: str) -> str:
    """A title `as_quoted`, in which a tokenizer's normaliser finds no `"` either: some make one of a full-width
    one, or of two apostrophes."""
    normaliser = tokenizer.backend_tokenizer.normalizer
    text = as_quoted(title)
    if normaliser is None or QUOTE not in normaliser.normalize_str(text):
        return text
    for mark in ("'", "\N{RIGHT SINGLE QUOTATION MARK}"):
        text = as_quoted(normaliser.normalize_str(title).replace(QUOTE, mark))
        if QUOTE not in normaliser.normalize_str(text):
            return text
    return as_quoted(normaliser.normalize_str(text).replace(QUOTE, ""))


def encode_plain(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise `texts` as plain characters in the middle of a text.

    Their tokens, one after the other, are the texts one after the other: no tokenizer adds a space before each. A text
    that spells a special token does not become one.
    """
    if not texts:
        return []
    anchor = anchor_of(tokenizer)
    start = len(anchor.tokens)
    encoded = tokenise(tokenizer, [anchor.text + text for text in texts])
    special = set(tokenizer.all_special_ids)
    result = []
    for text, ids in zip(texts, encoded, strict=True):
        # What begins with the anchor itself may melt into it.
        plain = ids[start:] if tuple(ids[:start]) == anchor.tokens else _behind_another(tokenizer, text)
        # A special token of one character is a character that titles have, too.
        forged = next((token for token in tokenizer.all_special_tokens if len(token) > 1 and token in text), None)
        if forged is not None and special.intersection(plain):
            # Some tokenizers have special tokens among their words, too; half of one is none.
            cut = text.index(forged) + 1
            plain = [token for half in encode_plain(tokenizer, [text[:cut], text[cut:]]) for token in half]
        result.append(plain)
    return result


def _behind_another(tokenizer: Any, text: str) -> list[int]:
    """As behind the first anchor that the text does not melt into; by itself if there is none."""
    for anchor in anchors_of(tokenizer):
        ids = tokenise(tokenizer, [anchor.text + text])[0]
        if tuple(ids[: len(anchor.tokens)]) == anchor.tokens:
            return ids[len(anchor.tokens) :]
    return tokenise(tokenizer, [text])[0]


def decode_plain(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of tokens in the middle of a text, the space before its first word included; no special tokens."""
    anchor = anchor_of(tokenizer)
    tokens = [*anchor.tokens, *token_ids]
    text: str = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text[len(anchor.decoded) :]
