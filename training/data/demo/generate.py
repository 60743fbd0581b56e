"""A seeded demo world: a movie-like catalogue and the people who watch it.

Every item has two latent parts that know nothing of each other. What its text says (theme, setting, mood) shows
in title and description; the community that loves it shows in who watches it together with what, and a little in
its genres.
Users choose by both, so collaborative filtering learns what no text shows. Some items are too new: they occur
as held-out targets only, chosen by their text, so that only a reader of text can rank them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import Field

from models.config import Config
from training.data.dataset import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, Dataset, DatasetInfo, Tally
from training.data.demo.words import GENRES, MOODS, NAMES, SETTINGS, SUBTITLES, THEMES, Theme

COMMUNITIES = 30
POPULARITY_EXPONENT = 0.7
SERIES_SHARE = 0.12
FOLLOW_PROBABILITY = 0.35
FIRST_YEAR, LAST_YEAR = 1950, 2023
RELEASE_YEAR = 2024
RELEASE_TIME = 1_704_067_200  # 2024-01-01, in seconds
DAY = 86_400

# What a match adds to the log-odds of being watched.
COMMUNITY_TASTE = (4.6, 2.0)
THEME_TASTE = (4.0, 2.0)
SETTING_TASTE = (1.2, 0.6)
MOOD_TASTE = 0.5
# New items have no community yet: those who look for something new go by its text alone.
NOVELTY_TASTE = 2.0


class DemoConfig(Config):
    """The size of the demo world.

    Attributes:
        users: how many people.
        items: how many movies.
        new_item_share: the share of movies too new to be in any training sequence.
        new_target_share: the probability that a test interaction is with a new movie; for validation half of it.
        cold_user_share: the share of users with exactly three interactions.
        mean_length: the mean length of the other users' sequences; all lie within 5 and 40.
        seed: one seed, one world.
    """

    users: int = Field(default=6000, ge=1)
    items: int = Field(default=1500, ge=100, le=10_000)
    new_item_share: float = Field(default=0.15, gt=0, lt=0.5)
    new_target_share: float = Field(default=0.3, ge=0, le=1)
    cold_user_share: float = Field(default=0.08, ge=0, le=1)
    mean_length: float = Field(default=14, gt=5, lt=40)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Movies:
    """The latent side of N movies, rows 0..N-1; the new ones come last.

    Attributes:
        theme, setting, mood: (N,) what the text says.
        community: (N,) who loves it; hidden.
        popularity: (N,) relative frequency.
        sequel_of: (N,) the movie it continues, or -1.
        new: (N,) bool.
        titles, descriptions, genres: N each.
    """

    theme: np.ndarray
    setting: np.ndarray
    mood: np.ndarray
    community: np.ndarray
    popularity: np.ndarray
    sequel_of: np.ndarray
    new: np.ndarray
    titles: list[str]
    descriptions: list[str]
    genres: list[list[str]]


@dataclass(frozen=True)
class Tastes:
    """The latent side of U users.

    Attributes:
        communities, themes, settings: (U, 2) the favourite and the second.
        mood: (U,) the favourite.
    """

    communities: np.ndarray
    themes: np.ndarray
    settings: np.ndarray
    mood: np.ndarray


def generate(config: DemoConfig) -> Dataset:
    """Generate the world of `config`."""
    rng = np.random.default_rng(config.seed)
    movies = _make_movies(config, rng)
    tastes = _make_tastes(config.users, rng)
    histories = _watch(config, movies, tastes, rng)
    interactions = _interactions(histories, movies, rng)
    items = pl.DataFrame(
        {
            "item_id": [f"i{number}" for number in range(1, config.items + 1)],
            "title": movies.titles,
            "description": movies.descriptions,
            "categories": movies.genres,
        },
        schema=dict(ITEMS_SCHEMA),
    )
    interactions = interactions.with_columns(item_id=items["item_id"].gather(interactions["item"]))
    interactions = interactions.select(*INTERACTIONS_SCHEMA).sort("user_id", maintain_order=True)
    seen = interactions["item_id"].n_unique()
    info = DatasetInfo(
        name="demo",
        domain="movie",
        format="demo",
        settings=config.model_dump(),
        users=config.users,
        unseen_items=config.items - seen,
        interactions=Tally(read=len(interactions), kept=len(interactions)),
        items=Tally(read=len(items), kept=len(items)),
    )
    return Dataset(info, interactions, items)


def _make_movies(config: DemoConfig, rng: np.random.Generator) -> Movies:
    count = config.items
    theme = rng.integers(len(THEMES), size=count)
    setting = rng.integers(len(SETTINGS), size=count)
    mood = rng.integers(len(MOODS), size=count)
    community = rng.integers(COMMUNITIES, size=count)
    popularity = (1.0 + rng.permutation(count)) ** -POPULARITY_EXPONENT
    new = np.arange(count) >= count - max(1, round(config.new_item_share * count))
    year = np.where(new, RELEASE_YEAR, FIRST_YEAR + _skewed(count, LAST_YEAR - FIRST_YEAR, rng))

    sequel_of = np.full(count, -1)
    originals = np.flatnonzero(~new)
    sequels = rng.choice(count - 1, size=int(SERIES_SHARE * count), replace=False) + 1
    for movie in np.sort(sequels):
        parent = int(rng.choice(originals[originals < movie]))
        if parent in sequel_of or sequel_of[parent] >= 0:
            continue
        sequel_of[movie] = parent
        for latent in (theme, setting, mood, community):
            latent[movie] = latent[parent]
        if not new[movie]:
            year[movie] = min(LAST_YEAR, year[parent] + rng.integers(1, 5))

    names: list[str] = []
    taken: set[str] = set()
    for movie in range(count):
        parent = int(sequel_of[movie])
        while True:
            if parent >= 0:
                name = _sequel_title(names[parent], rng)
            else:
                name = _title(THEMES[theme[movie]], int(setting[movie]), int(mood[movie]), rng)
            title = f"{name} ({year[movie]})"
            if title not in taken:
                break
            year[movie] = FIRST_YEAR + rng.integers(LAST_YEAR - FIRST_YEAR) if not new[movie] else RELEASE_YEAR
        taken.add(title)
        names.append(name)

    community_genres = rng.integers(len(GENRES), size=COMMUNITIES)
    return Movies(
        theme,
        setting,
        mood,
        community,
        popularity,
        sequel_of,
        new,
        titles=[f"{name} ({when})" for name, when in zip(names, year, strict=True)],
        descriptions=[
            _description(THEMES[theme[movie]], int(setting[movie]), int(mood[movie]), rng) for movie in range(count)
        ],
        genres=[
            _genres(THEMES[theme[movie]], GENRES[community_genres[community[movie]]], rng) for movie in range(count)
        ],
    )


def _skewed(count: int, top: int, rng: np.random.Generator) -> np.ndarray:
    """Integers in 0..top, more of the high ones."""
    return np.asarray((rng.beta(3, 1.2, size=count) * (top + 1)).astype(np.int64))


def _title(theme: Theme, setting: int, mood: int, rng: np.random.Generator) -> str:
    noun, other = rng.choice(theme.nouns, size=2, replace=False)
    adjective = rng.choice(MOODS[mood].adjectives)
    name = rng.choice(NAMES)
    place = SETTINGS[setting].name
    patterns = (
        f"The {adjective} {noun}",
        f"{adjective} {noun}",
        f"The {noun} of {place}",
        f"The {noun} and the {other}",
        f"{name} and the {noun}",
        f"{name}'s {adjective} {noun}",
        f"Return to the {adjective} {noun}",
        f"The {adjective} {noun} of {place}",
        f"{adjective} {noun}, {adjective} {other}",
        f"{_article(noun)} {noun} for {name}",
    )
    return str(patterns[rng.integers(len(patterns))])


def _article(noun: str) -> str:
    return "An" if noun[0] in "AEIOU" else "A"


def _sequel_title(name: str, rng: np.random.Generator) -> str:
    return f"{name} 2" if rng.random() < 0.5 else f"{name}: {rng.choice(SUBTITLES)}"


def _description(theme: Theme, setting: int, mood: int, rng: np.random.Generator) -> str:
    hero, plot = rng.choice(theme.heroes), rng.choice(theme.plots)
    first, second, third = (noun.lower() for noun in rng.choice(theme.nouns, size=3, replace=False))
    place = SETTINGS[setting].phrase
    return (
        f"{place[0].upper()}{place[1:]}, {hero} must {plot}. {MOODS[mood].sentence} With {first}, {second} and {third}."
    )


def _genres(theme: Theme, community_genre: str, rng: np.random.Generator) -> list[str]:
    """One to three genres: some follow the theme, some the community."""
    chosen = {theme.genres[0]} if rng.random() < 0.85 else set()
    if rng.random() < 0.2:
        chosen.add(theme.genres[1])
    if rng.random() < 0.8 or not chosen:
        chosen.add(community_genre)
    return sorted(chosen)


def _make_tastes(users: int, rng: np.random.Generator) -> Tastes:
    def two_of(size: int) -> np.ndarray:
        return rng.random((users, size)).argsort(axis=1)[:, :2]

    return Tastes(
        communities=two_of(COMMUNITIES),
        themes=two_of(len(THEMES)),
        settings=two_of(len(SETTINGS)),
        mood=rng.integers(len(MOODS), size=users),
    )


def _watch(config: DemoConfig, movies: Movies, tastes: Tastes, rng: np.random.Generator) -> list[list[int]]:
    """For each user the movies watched, oldest first; new ones in the last two places only."""
    lengths = np.clip(5 + rng.exponential(config.mean_length - 5, size=config.users), 5, 40).astype(np.int64)
    lengths[rng.random(config.users) < config.cold_user_share] = 3
    old = np.flatnonzero(~movies.new)
    lengths = np.minimum(lengths, len(old) // 2)
    followers = _followers(movies, rng)
    histories = []
    for user in range(config.users):
        text = (
            _match(movies.theme, tastes.themes[user], THEME_TASTE)
            + _match(movies.setting, tastes.settings[user], SETTING_TASTE)
            + MOOD_TASTE * (movies.mood == tastes.mood[user])
        )
        company = _match(movies.community, tastes.communities[user], COMMUNITY_TASTE)
        appeal = (np.log(movies.popularity) + text + company)[old]
        wishes = old[np.argsort(-(appeal + rng.gumbel(size=len(old))))]
        history = _walk(int(lengths[user]), wishes, followers, rng)
        histories.append(_with_news(history, text, movies, config.new_target_share, rng))
    return histories


def _match(latent_N: np.ndarray, favourites: np.ndarray, taste: tuple[float, float]) -> np.ndarray:
    """(N,) what it adds to each movie's log-odds to be the favourite or the second."""
    return taste[0] * (latent_N == favourites[0]) + taste[1] * (latent_N == favourites[1])


def _followers(movies: Movies, rng: np.random.Generator) -> list[int]:
    """For each movie the one that people tend to watch next: its sequel, or another of its community."""
    followers = np.full(len(movies.titles), -1)
    for community in range(COMMUNITIES):
        circle = rng.permutation(np.flatnonzero((movies.community == community) & ~movies.new))
        followers[circle] = np.roll(circle, 1)
    for movie, parent in enumerate(movies.sequel_of):
        if parent >= 0 and not movies.new[movie]:
            followers[parent] = movie
    return [int(movie) for movie in followers]


def _walk(length: int, wishes: np.ndarray, followers: list[int], rng: np.random.Generator) -> list[int]:
    """Go down the list of wishes, now and then led on by the last movie; nothing is watched twice."""
    history: list[int] = []
    watched: set[int] = set()
    pending = iter(wishes.tolist())
    led_on = rng.random(length) < FOLLOW_PROBABILITY
    while len(history) < length:
        movie = followers[history[-1]] if history and led_on[len(history)] else -1
        if movie < 0 or movie in watched:
            movie = next(wish for wish in pending if wish not in watched)
        history.append(movie)
        watched.add(movie)
    return history


def _with_news(
    history: list[int], text: np.ndarray, movies: Movies, share: float, rng: np.random.Generator
) -> list[int]:
    """Put new movies of a fitting text last with probability `share`, last but one with half of it."""
    news = np.flatnonzero(movies.new)
    wishes = news[np.argsort(-(NOVELTY_TASTE * text[news] + rng.gumbel(size=len(news))))]
    for place, chance, wish in zip((-1, -2), (share, share / 2), wishes.tolist(), strict=False):
        if rng.random() < chance:
            history[place] = wish
    return history


def _interactions(histories: list[list[int]], movies: Movies, rng: np.random.Generator) -> pl.DataFrame:
    """The histories as a table; who watches new movies does so after their release, the others before."""
    users, items, times = [], [], []
    for number, history in enumerate(histories, start=1):
        gaps = (rng.exponential(6 * DAY, size=len(history)) + 60).astype(np.int64)
        news = int(movies.new[history].sum())
        age = 0 if news else int(rng.integers(2 * 365) * DAY)
        first_new = next((at for at, movie in enumerate(history) if movies.new[movie]), len(history))
        moments = RELEASE_TIME - age + np.cumsum(gaps) - gaps[:first_new].sum()
        users += [f"u{number}"] * len(history)
        items += history
        times += moments.tolist()
    return pl.DataFrame({"user_id": users, "item": items, "timestamp": times})
