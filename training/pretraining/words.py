"""The vocabulary of synthetic titles, which `words.toml` lists."""

from __future__ import annotations

import tomllib
from importlib import resources

_LISTS: dict[str, str | list[str]] = tomllib.loads(
    resources.files(__package__).joinpath("words.toml").read_text(encoding="utf-8")
)


def _of(name: str) -> list[str]:
    """A list of words, written as one text, or of phrases, written as an array."""
    listed = _LISTS[name]
    return listed.split() if isinstance(listed, str) else listed


GENRES = _of("genres")
ADJECTIVES = _of("adjectives")
NOUNS = _of("nouns")
PRODUCTS = _of("products")
NAMES = _of("names")
PLACES = _of("places")
GERUNDS = _of("gerunds")
BRANDS = _of("brands")
SUFFIXES = _of("suffixes")
COLOURS = _of("colours")
UNITS = _of("units")
