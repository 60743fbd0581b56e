"""Titles as tokens, as they stand in quotes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class TitleTokens:
    """Titles tokenised once.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
        titles: any strings, written `as_quoted`.
        max_tokens: longer titles are cut.
    """

    def __init__(self, tokenizer: Any, titles: Iterable[str], max_tokens: int) -> None:
        encoded = encode_plain(tokenizer, [as_quoted(title) for title in titles])
        self._tokens = [ids[:max_tokens] for ids in encoded]

    def __getitem__(self, item: int) -> list[int]:
        """The tokens of title `item`."""
        return self._tokens[item]

    def __len__(self) -> int:
        """The number of titles."""
        return len(self._tokens)

    def of(self, items: Iterable[int]) -> list[list[int]]:
        """The tokens of several titles."""
        return [self._tokens[item] for item in items]


def as_quoted(title: str) -> str:
    """A title as it is quoted: whitespace is collapsed, and `"` becomes `'`, so that no title can end its own quote."""
    return " ".join(title.replace('"', "'").split())


def encode_plain(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise `texts` as plain characters: a text that spells a special token does not become one."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
    return [list(ids) for ids in encoded["input_ids"]]
