"""Titles for a prompt, as tokens: of the grammar or at random, some of which begin alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.prompts.titles import TitleTokens
from training.pretraining.mixture import MAX_TITLE_TOKENS, Mixture
from training.pretraining.titles import TitleGrammar

_LIMITS = (1, 2, 4, 8, 16)


class TitleSampler:
    """Draws the titles of a prompt.

    Titles are drawn from a stock, which is tokenised once.

    Args:
        tokenizer: the embedded LLM's.
        seed: of the stock.
        stock: its size; a tenth as many series are there too.
    """

    def __init__(self, tokenizer: Any, seed: int, stock: int) -> None:
        grammar = TitleGrammar(np.random.default_rng([seed, 1]))
        self._stock = TitleTokens(tokenizer, [grammar.title() for _ in range(stock)], MAX_TITLE_TOKENS)
        groups = [grammar.series(2 + number % 4) for number in range(stock // 10)]
        self._series = [TitleTokens(tokenizer, group, MAX_TITLE_TOKENS).of(range(len(group))) for group in groups]
        # Random titles may have any token but those that end a title or a text.
        self._pieces = np.asarray(
            [
                token
                for token in range(len(tokenizer))
                if token not in tokenizer.all_special_ids and '"' not in tokenizer.decode([token])
            ]
        )

    def draw(self, rng: np.random.Generator, mixture: Mixture, history: int, candidates: int) -> list[list[int]]:
        """Titles of the history and then of the candidates, all different, each part in random order."""
        count = history + candidates
        limit = int(rng.choice([limit for limit in _LIMITS if limit <= mixture.title_tokens]))
        # Of one or two tokens the grammar's titles would often be equal (The, A).
        if limit >= 4 and rng.random() < 0.6:
            titles = self._of_grammar(rng, count, limit)
        else:
            titles = self._at_random(rng, count, limit, mixture.collisions)
        titles = [titles[index] for index in rng.permutation(count)]
        if history and rng.random() < mixture.series:
            titles[history:] = self._continuing(rng, titles[:history], titles[history:], limit)
        return self._distinct(rng, titles)

    def _distinct(self, rng: np.random.Generator, titles: list[list[int]]) -> list[list[int]]:
        """The titles, with random tokens in place of those that are there already."""
        distinct: dict[tuple[int, ...], None] = {}
        for title in map(tuple, titles):
            fresh = title
            while fresh in distinct:
                fresh = tuple(rng.choice(self._pieces, len(title)).tolist())
            distinct[fresh] = None
        return [list(title) for title in distinct]

    def _continuing(
        self, rng: np.random.Generator, history: list[list[int]], candidates: list[list[int]], limit: int
    ) -> list[list[int]]:
        """The candidates' titles, some of which begin as titles of the history do."""
        share = rng.uniform(0.0, 0.3)
        return [
            self._with_beginning_of(rng, history, title, limit) if rng.random() < share else title
            for title in candidates
        ]

    @staticmethod
    def _with_beginning_of(
        rng: np.random.Generator, history: list[list[int]], title: list[int], limit: int
    ) -> list[int]:
        """One token in common is no series and three are no more than two: the LM has to learn both."""
        beginning = history[rng.integers(len(history))]
        shared = 1 + int(rng.random() < 0.8) + int(rng.random() < 0.3)
        return (beginning[:shared] + title)[:limit]

    def _of_grammar(self, rng: np.random.Generator, count: int, limit: int) -> list[list[int]]:
        """Titles of the stock; in half of the prompts the first ones are a series, in a quarter two, and so on."""
        titles = self._stock.of(rng.integers(len(self._stock), size=count))
        start = 0
        while start < count and rng.random() < 0.5:
            series = self._series[rng.integers(len(self._series))][: count - start]
            titles[start : start + len(series)] = series
            start += len(series)
        return [title[:limit] for title in titles]

    def _at_random(self, rng: np.random.Generator, count: int, limit: int, collisions: float) -> list[list[int]]:
        """Random tokens; each collision makes two titles that begin alike."""
        lengths = rng.integers(1, limit + 1, size=count)
        tokens = rng.choice(self._pieces, size=(count, limit))
        titles = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
        if limit > 1:
            for index in np.flatnonzero(rng.random(count) < collisions / 2):
                other = titles[rng.integers(count)]
                shared = 1 if rng.random() < 0.6 else int(rng.integers(1, len(other) + 1))
                titles[index] = (other[:shared] + titles[index])[:limit]
        return titles
