"""From generated tokens to pieces of text, the same for every engine."""

from __future__ import annotations

from typing import Any

from models.prompts.titles import decode_plain


class TextStream:
    """Decodes a continuation token by token.

    Args:
        tokenizer: the LLM's tokenizer.
        stop: the text ends after the first of these strings.

    Attributes:
        ended: the LLM ended the text, or one of `stop` appeared; what follows is not to be shown.
    """

    def __init__(self, tokenizer: Any, stop: tuple[str, ...]) -> None:
        self.ended = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._token_ids: list[int] = []
        self._shown = 0

    def push(self, token_id: int) -> str:
        """What `token_id` adds to the text; nothing while a character is incomplete."""
        if token_id == self._tokenizer.eos_token_id:
            self.ended = True
            return ""
        self._token_ids.append(token_id)
        text = decode_plain(self._tokenizer, self._token_ids)
        end = min((text.find(mark) + len(mark) for mark in self._stop if mark in text), default=None)
        if end is None and text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self.ended = end is not None
        piece = text[self._shown : end]
        self._shown = len(text)
        return piece
