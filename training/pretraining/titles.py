"""Synthetic titles of films, games, books, songs and products, alone and in series."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from training.pretraining.words import (
    ADJECTIVES,
    BRANDS,
    COLOURS,
    GERUNDS,
    NAMES,
    NOUNS,
    PLACES,
    PRODUCTS,
    SUFFIXES,
    UNITS,
)


class TitleGrammar:
    """Draws titles from a small grammar.

    Args:
        rng: the source of all randomness.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._patterns: tuple[Callable[[], str], ...] = (
            lambda: self._of(NOUNS),
            lambda: f"The {self._of(NOUNS)}",
            lambda: f"The {self._of(ADJECTIVES)} {self._of(NOUNS)}",
            lambda: f"{self._of(ADJECTIVES)} {self._of(NOUNS)}",
            lambda: f"{self._of(NOUNS)} of {self._of(PLACES)}",
            lambda: f"{self._of(NOUNS)} of the {self._of(NOUNS)}",
            lambda: f"The {self._of(NOUNS)} of {self._of(NAMES)} {self._of(NAMES)}",
            lambda: f"{self._of(NAMES)}'s {self._of(NOUNS)}",
            lambda: f"{self._of(NAMES)} and {self._of(NAMES)}",
            lambda: f"{self._of(GERUNDS)} {self._of(NAMES)}",
            lambda: f"{self._of(GERUNDS)} the {self._of(NOUNS)}",
            lambda: f"A {self._of(NOUNS)} in {self._of(PLACES)}",
            lambda: f"{self._of(NOUNS)}: {self._of(ADJECTIVES)} {self._of(NOUNS)}",
            lambda: f"{self._of(NAMES)}: The {self._of(NOUNS)} of {self._of(NOUNS)}",
            # Twice, so that one title in eight is a product.
            self._product,
            self._product,
        )

    def title(self) -> str:
        """One title; one in four with its year."""
        text = self._patterns[self._rng.integers(len(self._patterns))]()
        return f"{text} ({self._year()})" if self._rng.random() < 0.25 else text

    def series(self, size: int) -> list[str]:
        """`size` titles that begin alike; the first may be the beginning of all others."""
        base = self._patterns[self._rng.integers(len(self._patterns))]()
        return [base if member == 0 and self._rng.random() < 0.5 else base + self._ending() for member in range(size)]

    def _ending(self) -> str:
        match self._rng.integers(5):
            case 0:
                return f" ({self._year()})"
            case 1:
                return f": The {self._of(ADJECTIVES)} {self._of(NOUNS)}"
            case 2:
                return f" - {self._of(SUFFIXES)}"
            case 3:
                return f": {self._of(NOUNS)} of {self._of(NOUNS)}"
            case _:
                return f" {self._of(SUFFIXES)}"

    def _product(self) -> str:
        size = f"{self._rng.integers(1, 100)} {self._of(UNITS)}"
        if self._rng.random() < 0.3:
            size = f"{self._rng.integers(1, 4)}/{2 ** self._rng.integers(1, 5)}-{self._of(UNITS)}"
        name = f"{self._of(BRANDS)} {self._of(ADJECTIVES)} {self._of(PRODUCTS)}"
        return (
            f"{name} {self._of(PRODUCTS)}",
            f"{name}, {size}, {self._of(COLOURS)}",
            f"{name} with {self._of(PRODUCTS)} for {self._of(BRANDS)} {self._of(PRODUCTS)}",
            f"{self._of(BRANDS)} {self._rng.integers(10, 9999)} {self._of(PRODUCTS)} ({size})",
        )[self._rng.integers(4)]

    def _year(self) -> int:
        # Most titles are of the last decades, none is more than a century old.
        return 2025 - int(self._rng.exponential(18.0)) % 100

    def _of(self, words: Sequence[str]) -> str:
        return words[int(self._rng.integers(len(words)))]
