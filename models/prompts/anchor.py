"""What stands before a piece of text, so that it is tokenised as in the middle of one.

Many tokenizers, those of the SentencePiece kind, put a space before what they take for the beginning of a text. Pieces
of a prompt, tokenised one by one, would then read `" The Lion "` for `"The Lion"`. So a piece is tokenised behind an
anchor, whose tokens are taken away again.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

CANDIDATES = ("", "\n", '"', ".", "a")
PIECES = (" This user has", ' "', "Ab c", '"', ",", ' "', "2001", '"', ". It is", ' "', "(x)", '"')
"""Of a prompt as all are."""
SCRIPTS = "Am\u00e9lie \u5343\u3068\u5343\u5c0b \u0627\u0644\u0631\u0633\u0627\u0644\u0629 \U0001f3ac"
READ = (string.printable, SCRIPTS, *string.ascii_letters, *string.digits)
"""What tokenizers are told apart by."""


@dataclass(frozen=True)
class Anchor:
    """Text before a piece, the tokens that it is by itself, and what these are as text: a space may stand before it."""

    text: str
    tokens: tuple[int, ...]
    decoded: str


_ANCHORS: WeakKeyDictionary[Any, tuple[Anchor, ...]] = WeakKeyDictionary()


def anchors_of(tokenizer: Any) -> tuple[Anchor, ...]:
    """The anchors behind which the pieces of a prompt add up to its text."""
    anchors = _ANCHORS.get(tokenizer)
    if anchors is None:
        found = (_anchor(tokenizer, text) for text in CANDIDATES)
        anchors = _ANCHORS[tokenizer] = tuple(anchor for anchor in found if _adds_up(tokenizer, anchor))
    return anchors


def anchor_of(tokenizer: Any) -> Anchor:
    """The first of them; an empty one if there is none."""
    return next(iter(anchors_of(tokenizer)), Anchor("", (), ""))


def tokenise(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise `texts` as they are: without special tokens, neither around them nor for their spelling."""
    return [
        list(ids) for ids in tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ]


def reading_of(tokenizer: Any) -> str:
    """SHA-256 of the tokens that a tokenizer makes of some texts in several scripts."""
    tokens = [tokenizer.bos_token_id, *tokenise(tokenizer, [*PIECES, *READ])]
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def _anchor(tokenizer: Any, text: str) -> Anchor:
    tokens = tuple(tokenise(tokenizer, [text])[0] if text else ())
    return Anchor(text, tokens, tokenizer.decode(tokens, clean_up_tokenization_spaces=False) if tokens else "")


def _adds_up(tokenizer: Any, anchor: Anchor) -> bool:
    if not {*tokenizer.all_special_ids}.isdisjoint(anchor.tokens):
        return False  # of what the tokenizer does not know nothing is left in a text
    encoded = tokenise(tokenizer, [anchor.text + piece for piece in PIECES])
    start = len(anchor.tokens)
    if any(tuple(ids[:start]) != anchor.tokens for ids in encoded):
        return False
    tokens = [*anchor.tokens, *chain.from_iterable(ids[start:] for ids in encoded)]
    return bool(tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == anchor.decoded + "".join(PIECES))
