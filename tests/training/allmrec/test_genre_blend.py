"""How genres are weighed: calibrated by what users took next, and no worse than counting at naming favourites."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from models.composer import PromptComposer
from models.engines.transformers import in_process
from models.llm.loading import LanguageModel
from models.prompts.template import PromptConfig
from models.recommending.genres import GenreRanker, GenreSignals
from tests.tiny import tiny_contents, tiny_genre_blends, tiny_llm, tiny_split
from tests.training.allmrec.test_genres import with_genres
from training.allmrec.genre_blend import (
    FEWEST_USERS,
    GenreBlendConfig,
    GenreFit,
    GenreLessons,
    fit_genre_blends,
    genre_lessons,
)
from training.allmrec.genres import (
    BLENDED,
    BLENDED_WITH_LLM,
    UNWEIGHED,
    WEIGHED,
    GenreQuiz,
    genre_agreement,
    genre_guesses,
)
from training.data.splits import Holdout, SequenceSplit

USERS, GENRES = 2000, 5
SIGNALS = (GenreSignals.LLM, GenreSignals.COUNT)


def lessons(taste: float, count: float, seed: int = 0) -> GenreLessons:
    """Users who take genres by what the LLM says and by counts, so strongly; their favourite has the highest count."""
    random = np.random.default_rng(seed)
    llm_E_G, count_E_G = random.normal(size=(2, USERS, GENRES))
    logits_E_G = taste * llm_E_G + count * count_E_G + random.gumbel(size=(USERS, GENRES))
    taken_E_G = np.eye(GENRES)[logits_E_G.argmax(axis=1)]
    favorites = count_E_G.argmax(axis=1)
    counted = np.where(random.random(USERS) < 0.9, favorites, (favorites + 1) % GENRES)
    return GenreLessons({GenreSignals.LLM: llm_E_G, GenreSignals.COUNT: count_E_G}, taken_E_G, favorites, counted)


def test_weights_are_those_by_which_genres_are_taken() -> None:
    """Where nothing is asked of favourites, the law that the choices were drawn by is found again: 1.0 and 0.5."""
    blend = GenreFit(lessons(1.0, 0.5), SIGNALS, GenreBlendConfig(favorite_weights=(0.0,))).fit()
    found = [signal.weight / signal.scale for signal in blend.signals]
    assert found == pytest.approx([1.0, 0.5], abs=0.1)


def test_favourites_count_as_little_as_makes_them_named_as_often_as_by_counting() -> None:
    """By what users take alone the LLM would name them; counting names nine in ten."""
    users, config = lessons(1.0, 0.5), GenreBlendConfig()
    free = GenreFit(users, SIGNALS, GenreBlendConfig(favorite_weights=(0.0,))).fit()
    bound = GenreFit(users, SIGNALS, config).fit()
    enough = users.agreement(users.counted)
    assert free.validation["agreement"] < enough <= bound.validation["agreement"]
    place = config.favorite_weights.index(bound.validation["favorite_weight"])
    less = GenreFit(users, SIGNALS, GenreBlendConfig(favorite_weights=config.favorite_weights[place - 1 : place])).fit()
    assert less.validation["agreement"] < enough
    assert free.validation["log_likelihood"] > bound.validation["log_likelihood"] > -np.log(GENRES)


def test_where_counting_cannot_be_reached_what_names_most_is_taken() -> None:
    users = lessons(1.0, 0.5)
    blind = replace(users, scores={**users.scores, GenreSignals.COUNT: np.zeros((USERS, GENRES))})
    blend = GenreFit(blind, SIGNALS, GenreBlendConfig(favorite_weights=(0.0, 1.0))).fit()
    assert blend.validation["agreement"] < users.agreement(users.counted)


@pytest.fixture(scope="module")
def split() -> SequenceSplit:
    return with_genres(tiny_split(users=200))


@pytest.fixture(scope="module")
def llm() -> LanguageModel:
    return tiny_llm(interface=True)


def composer_of(split: SequenceSplit, llm: LanguageModel, history_items: int = 3) -> PromptComposer:
    return PromptComposer(
        tiny_contents(split), PromptConfig(history_items=history_items), llm.tokenizer, llm.context_length
    )


def test_lessons_are_of_validation_and_of_users_who_are_not_quizzed(split: SequenceSplit, llm: LanguageModel) -> None:
    """What users took next is their validation item, and their history ends before it."""

    async def learn() -> GenreLessons:
        async with in_process(llm) as engine:
            return await genre_lessons(split, composer_of(split, llm), engine, GenreBlendConfig(users=1000))

    found = asyncio.run(learn())
    rows = np.arange(len(split))[WEIGHED]
    assert len(found) == len(rows)
    assert not {split.user_ids[row] for row in rows} & set(GenreQuiz.of(split, 1000, among=UNWEIGHED).user_ids)
    genres = list(split.catalogue.genres)
    taken = sorted(genres[row.argmax()] for row in found.taken)
    assert taken == sorted(split.catalogue.categories[split.validation[row]][0] for row in rows)
    lengths = np.exp(found.scores[GenreSignals.COUNT]).sum(axis=1) - 0.5 * len(genres)
    assert sorted(lengths.round().astype(int)) == sorted(
        len(split.history(int(row), Holdout.VALIDATION)) for row in rows
    )


def test_the_fitted_blend_names_more_favourites_than_its_llm(split: SequenceSplit, llm: LanguageModel) -> None:
    """A random LLM beside counts; on users that neither tokens nor weights were fitted to."""
    composer = composer_of(split, llm)

    async def measure() -> dict[str, float]:
        async with in_process(llm) as engine:
            blends = await fit_genre_blends(split, composer, engine, GenreBlendConfig())
            assert blends is not None
            assert blends.llm.validation["agreement"] >= blends.validation["counting"]
            quiz = GenreQuiz.of(split, 1000, among=UNWEIGHED)
            guesses = await genre_guesses(quiz, composer.model, composer, engine, None, blends)
            return {name: share.mean for name, share in genre_agreement(quiz, guesses).items()}

    shares = asyncio.run(measure())
    assert shares[BLENDED_WITH_LLM] > shares["A-LLMRec"] + 0.2
    assert shares[BLENDED] > shares["A-LLMRec"] + 0.2


def test_too_few_users_or_genres_give_no_weights(llm: LanguageModel) -> None:
    async def fit(split: SequenceSplit) -> object:
        async with in_process(llm) as engine:
            return await fit_genre_blends(split, composer_of(split, llm), engine, GenreBlendConfig())

    assert asyncio.run(fit(with_genres(tiny_split(users=4 * FEWEST_USERS - 4)))) is None
    assert asyncio.run(fit(with_genres(tiny_split(users=200), ()))) is None


def test_probabilities_are_the_blends(split: SequenceSplit, llm: LanguageModel) -> None:
    """Of equal weights, each signal less its mean is added; without the LLM, all but its."""
    composer = composer_of(split, llm)
    ranker, signals = GenreRanker(composer, tiny_genre_blends()), GenreSignals(composer)
    history, said = np.array([1, 4, 2]), np.log([0.2, 0.3, 0.5])
    vector = composer.model.user_vectors([history])[0]
    members = [split.catalogue.genres[genre] for genre in composer.genres]
    counts = [sum(item in items for item in history) for items in members]
    scores = signals.of(vector, history)
    assert scores[GenreSignals.COUNT] == pytest.approx(np.log(np.array(counts) + 0.5))
    assert scores[GenreSignals.RARITY] == pytest.approx([-np.log(len(items)) for items in members])
    for answer in (None, said):
        logits = sum(values - values.mean() for values in [*scores.values(), *([] if answer is None else [answer])])
        expected = np.exp(logits) / np.exp(logits).sum()
        assert ranker.probabilities(vector, history, answer) == pytest.approx(expected)
