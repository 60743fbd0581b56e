"""Free text whose quotes are chosen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from models.llm.loading import load_tokenizer
from models.prompts.layout import Prompt
from models.prompts.titles import encode_plain
from models.scoring.choices import ChoiceTrie
from models.writing import Draft, Quotable, write

TOKENIZER = load_tokenizer("embedded")
PROMPT = Prompt(np.asarray(encode_plain(TOKENIZER, ["It is"])[0]), np.asarray([0]), torch.zeros(1, 4))
TITLES = ["Dr. Who", "Roma", "The Lion"]


class Script:
    """An engine that writes given texts, one a call, and likes the titles of `order` best, first first."""

    tokenizer = TOKENIZER

    def __init__(self, texts: Sequence[str], order: Sequence[str] = ()) -> None:
        self._texts = list(texts)
        self._order = [(*encode_plain(TOKENIZER, [title])[0], *encode_plain(TOKENIZER, ['"'])[0]) for title in order]
        self.read: list[str] = []
        self.closed = 0
        self.limits: list[int] = []

    async def score(self, prompt: Prompt, trie: ChoiceTrie) -> list[np.ndarray]:
        self.read.append(TOKENIZER.decode(prompt.token_ids))
        rows = []
        for branch in trie.branches:
            path = branch.path
            ranks = [
                next((r for r, title in enumerate(self._order) if title[: len(path) + 1] == (*path, child)), 9)
                for child in branch.children.tolist()
            ]
            rows.append(-5.0 * np.asarray(ranks))
        return rows

    async def generate(self, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()) -> AsyncIterator[str]:
        self.read.append(TOKENIZER.decode(prompt.token_ids))
        self.limits.append(max_tokens)
        try:
            for piece in re.findall(r" ?[^ ]+", self._texts.pop(0)):
                ends = [piece.index(mark) for mark in stop if mark in piece]
                yield piece[: min(ends) + 1] if ends else piece
                if ends:
                    return
        finally:
            self.closed += 1


def draft(titles: Sequence[str] = TITLES) -> Draft:
    return Draft(PROMPT, [Quotable(encode_plain(TOKENIZER, [title])[0], title) for title in titles])


def written(engine: Any, draft: Draft, max_tokens: int = 100) -> list[str]:
    async def collect() -> list[str]:
        return [piece async for piece in write(engine, draft, max_tokens)]

    return asyncio.run(collect())


def test_a_quote_is_the_title_that_the_llm_likes_best():
    """Whatever it would have written inside; a full stop in a title ends nothing."""
    engine = Script([' for "Nonsense', ' and ("Nonsense', ", all good. More"], ["The Lion", "Dr. Who"])
    assert "".join(written(engine, draft())) == ' for "The Lion" and ("Dr. Who", all good.'


def test_what_was_written_is_read_on():
    """Each part continues the prompt, the text before it and the titles quoted."""
    engine = Script([' for "', ' and "', "."], ["The Lion", "Dr. Who"])
    written(engine, draft())
    opened = 'It is for "'
    went_on = f'{opened}The Lion" and "'
    assert engine.read == ["It is", opened, f'{opened}The Lion"', went_on, f'{went_on}Dr. Who"']


def test_no_title_is_quoted_twice_and_the_sentence_ends_with_the_last():
    """A quote opened with none left, and what leads to it, is not shown."""
    engine = Script([' for "', ' and "', ' and then "'], ["The Lion", "Dr. Who"])
    assert "".join(written(engine, draft(TITLES[::2]))) == ' for "The Lion" and "Dr. Who".'


def test_after_the_last_title_free_words_are_shown():
    engine = Script([' for "', " and such."])
    assert written(engine, draft(TITLES[:1])) == [" for", ' "', 'Dr. Who"', " and such."]


def test_nothing_after_the_last_title_is_no_piece():
    assert written(Script([' for "', ""]), draft(TITLES[:1])) == [" for", ' "', 'Dr. Who"']


@pytest.mark.parametrize("titles", [TITLES, TITLES[:1]])
@pytest.mark.parametrize("begun", [" wolf", " wolf (2003)", "", '"'])
def test_a_quote_within_a_word_leaves_the_sentence_without_its_end(titles: list[str], begun: str):
    """Nor does one open right after another."""
    assert not "".join(written(Script([' for "', f'{begun}"', "."]), draft(titles))).endswith(".")


@pytest.mark.parametrize("begun", ["", " (", " such as:", " \N{EM DASH}", " or/"])
def test_a_quote_opens_where_a_word_could(begun: str):
    assert "".join(written(Script([f'{begun}"', "."]), draft(TITLES[:1]))) == f'{begun}"Dr. Who".'


def test_only_free_words_count_for_the_limit():
    """Two tokens of ten are ` for` and the quote; once none is left, the sentence stays without its end."""
    engine = Script([' for "', ' and "', "."])
    written(engine, draft(), 10)
    assert engine.limits == [10, 8, 6]
    assert "".join(written(Script([' for "', "."], ["The Lion"]), draft(), 2)) == ' for "The Lion"'


def test_a_text_without_quotes_is_left_alone():
    assert "".join(written(Script([" good"]), draft())) == " good"


def test_titles_cut_to_the_same_tokens_are_both_quoted():
    tokens = encode_plain(TOKENIZER, ["The Lion"])[0]
    same = Draft(PROMPT, [Quotable(tokens, "The Lion King"), Quotable(tokens, "The Lion Queen")])
    text = "".join(written(Script([' for "', ' and "', "."]), same))
    assert sorted(text.split('"')[1::2]) == ["The Lion King", "The Lion Queen"]


def test_closing_the_text_closes_what_the_llm_writes():
    engine = Script([" for a long time"])

    async def listen_to_one() -> None:
        pieces = write(engine, draft(), 100)
        await anext(pieces)
        await pieces.aclose()

    asyncio.run(listen_to_one())
    assert engine.closed == 1
