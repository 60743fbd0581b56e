"""The vocabulary of the demo world, which `words.toml` lists."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any, NamedTuple


class Theme(NamedTuple):
    """What a movie is about.

    Attributes:
        nouns: things that stand in titles.
        heroes: who the story follows.
        plots: what they do.
        genres: the two genres that this theme suggests.
    """

    nouns: list[str]
    heroes: list[str]
    plots: list[str]
    genres: list[str]


class Setting(NamedTuple):
    """Where a movie plays: a name for titles and a phrase for descriptions."""

    name: str
    phrase: str


class Mood(NamedTuple):
    """How a movie feels: adjectives for titles and a sentence for descriptions."""

    adjectives: list[str]
    sentence: str


_WORDS: dict[str, Any] = tomllib.loads(resources.files(__package__).joinpath("words.toml").read_text(encoding="utf-8"))

GENRES: list[str] = _WORDS["genres"]
NAMES: list[str] = _WORDS["names"]
SUBTITLES: list[str] = _WORDS["subtitles"]
THEMES = [Theme(**theme) for theme in _WORDS["themes"]]
SETTINGS = [Setting(**setting) for setting in _WORDS["settings"]]
MOODS = [Mood(**mood) for mood in _WORDS["moods"]]
