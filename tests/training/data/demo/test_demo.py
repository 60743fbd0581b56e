"""The demo world: plausible, seeded, and with one signal for CF and another for text."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from polars.testing import assert_frame_equal

from training.data.dataset import Dataset
from training.data.demo.generate import RELEASE_TIME, RELEASE_YEAR, DemoConfig, generate
from training.data.demo.words import GENRES
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import Candidates, draw_candidates

CONFIG = DemoConfig(users=2000, items=600)
CHANCE = 1 / 20


@pytest.fixture(scope="module")
def world() -> Dataset:
    return generate(CONFIG)


@pytest.fixture(scope="module")
def split(world: Dataset) -> SequenceSplit:
    return SequenceSplit.from_dataset(world)


def test_one_seed_is_one_world() -> None:
    small = DemoConfig(users=50, items=100, seed=4)
    first, again = generate(small), generate(small)
    assert_frame_equal(first.interactions, again.interactions)
    assert_frame_equal(first.items, again.items)
    other = generate(small.model_copy(update={"seed": 5}))
    assert not first.items["title"].equals(other.items["title"])


def test_the_world_has_the_size_asked_for(world: Dataset) -> None:
    assert world.interactions["user_id"].n_unique() == world.info.users == 2000
    assert len(world.items) == 600
    assert world.interactions["user_id"].is_sorted()


def test_titles_are_unique_dated_and_share_beginnings(world: Dataset) -> None:
    """Enough common first words and series that a choice trie has something to branch on."""
    titles = world.items["title"].to_list()
    assert len(set(titles)) == len(titles)
    assert all(re.fullmatch(r"[A-Z].+ \((19[5-9]\d|20[012]\d)\)", title) for title in titles)
    names = [title[:-7] for title in titles]
    assert sum(f"{name} 2" in names for name in names) >= 10
    first_words = Counter(name.split()[0] for name in names)
    assert first_words.most_common(1)[0][1] >= 60


def test_every_movie_has_genres_and_a_description(world: Dataset) -> None:
    for genres, description in world.items.select("categories", "description").rows():
        assert 1 <= len(genres) <= 3
        assert set(genres) <= set(GENRES)
        assert len(description.split()) >= 15


def test_nobody_watches_a_movie_twice_or_backwards(world: Dataset) -> None:
    pairs = world.interactions.select("user_id", "item_id")
    assert pairs.n_unique() == len(pairs)
    assert_frame_equal(world.interactions, world.interactions.sort("user_id", "timestamp", maintain_order=True))


def test_sequences_are_of_three_or_of_five_to_forty(world: Dataset) -> None:
    lengths = world.interactions.group_by("user_id").len()["len"].to_numpy()
    assert set(lengths) <= {3, *range(5, 41)}
    assert abs((lengths == 3).mean() - CONFIG.cold_user_share) < 0.02


def test_popularity_is_skewed(split: SequenceSplit) -> None:
    """The most popular tenth has more than a quarter of all."""
    counts = np.sort(split.catalogue.interactions[1:])[::-1]
    assert counts[:60].sum() > 0.25 * counts.sum()


def test_new_movies_are_held_out_only_and_after_their_release(world: Dataset, split: SequenceSplit) -> None:
    new = np.array([f"({RELEASE_YEAR})" in title for title in split.catalogue.titles])
    assert new.sum() == round(CONFIG.new_item_share * CONFIG.items)
    assert split.catalogue.interactions[new].sum() == 0
    assert abs(new[split.test].mean() - CONFIG.new_target_share) < 0.03
    assert abs(new[split.validation].mean() - CONFIG.new_target_share / 2) < 0.03
    released = world.items.filter(world.items["title"].str.contains(f"({RELEASE_YEAR})", literal=True))["item_id"]
    late = world.interactions.filter(world.interactions["item_id"].is_in(released.to_list()))
    assert late["timestamp"].min() >= RELEASE_TIME


def test_users_have_a_favourite_genre(split: SequenceSplit) -> None:
    """What a user watched first foretells the genres of what follows better than what someone else did."""
    shares = np.zeros((len(split.catalogue) + 1, len(GENRES)))
    for item, names in enumerate(split.catalogue.categories):
        shares[item, [GENRES.index(name) for name in names]] = 1
    long = [items for items in split.train if len(items) >= 10]
    first = np.stack([shares[items[: len(items) // 2]].mean(axis=0) for items in long])
    then = np.stack([shares[items[len(items) // 2 :]].mean(axis=0) for items in long])
    favourite = first.argmax(axis=1)
    own = then[np.arange(len(long)), favourite].mean()
    others = np.roll(then, 1, axis=0)[np.arange(len(long)), favourite].mean()
    assert own > 2 * others


def hit_at_1(scores_E_K: np.ndarray, of: np.ndarray) -> float:
    """The share of the users `of` for whom the positive, in column 0, beats all others."""
    return float((scores_E_K[of, :1] > scores_E_K[of, 1:]).all(axis=1).mean())


def centroid_scores(split: SequenceSplit, candidates: Candidates, vectors_N_D: np.ndarray) -> np.ndarray:
    """(E, K) inner products of the candidates with the mean of the user's history."""
    histories = [split.history(int(user), Holdout.TEST) for user in candidates.users]
    users_E_D = np.stack([vectors_N_D[history].mean(axis=0) for history in histories])
    return np.einsum("ed,ekd->ek", users_E_D, vectors_N_D[candidates.items])


def text_vectors(split: SequenceSplit) -> np.ndarray:
    """(N+1, W) normalised bags of words, weighted by rarity."""
    words = [set(re.findall(r"[a-z]+", text.lower())) for text in split.catalogue.descriptions]
    vocabulary = {word: column for column, word in enumerate(sorted(set().union(*words)))}
    bags = np.zeros((len(words), len(vocabulary)))
    for row, found in enumerate(words):
        bags[row, [vocabulary[word] for word in found]] = 1
    bags *= np.log(len(words) / bags.sum(axis=0))
    return np.asarray(bags / np.maximum(np.linalg.norm(bags, axis=1, keepdims=True), 1e-9))


def company_vectors(split: SequenceSplit) -> np.ndarray:
    """(N+1, U) who watched it in training, normalised."""
    watched = np.zeros((len(split.catalogue) + 1, len(split)))
    for user, items in enumerate(split.train):
        watched[items, user] = 1
    return np.asarray(watched / np.maximum(np.linalg.norm(watched, axis=1, keepdims=True), 1e-9))


def test_text_ranks_new_movies_and_company_ranks_known_ones(split: SequenceSplit) -> None:
    """Bags of words find new movies that co-occurrence cannot; on warm movies it is the other way round."""
    candidates = draw_candidates(split, Holdout.TEST)
    target = candidates.items[:, 0]
    warm, new = split.warm_items[target], split.catalogue.interactions[target] == 0
    text = centroid_scores(split, candidates, text_vectors(split))
    company = centroid_scores(split, candidates, company_vectors(split))
    popularity = split.catalogue.interactions[candidates.items].astype(float)
    assert hit_at_1(text, new) > 6 * CHANCE
    assert hit_at_1(company, new) < CHANCE
    assert hit_at_1(company, warm) > hit_at_1(text, warm) + 0.1
    assert hit_at_1(company, warm) > hit_at_1(popularity, warm) + 0.05
