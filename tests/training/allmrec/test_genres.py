"""Favourite genres: the truth, what the LLM is told of a genre, and the agreement."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.backbones import represent_all
from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import Catalogue
from models.composer import PromptComposer
from models.engines.transformers import in_process
from models.llm.law import ExactReader
from models.llm.loading import LanguageModel
from models.prompts.template import PromptConfig
from tests.tiny import tiny_contents, tiny_llm, tiny_split
from training.allmrec.genres import (
    COUNTING,
    MOST_COMMON,
    READ_EXACTLY,
    GenreConfig,
    GenreQuiz,
    GenreReader,
    favorite_genres,
    fit_genres,
    genre_agreement,
    genre_foresight,
    genre_guesses,
)
from training.data.splits import SequenceSplit
from training.evaluation.metrics import Estimate

GENRES = ("Comedy", "Drama", "War")


def with_genres(split: SequenceSplit, genres: tuple[str, ...] = GENRES) -> SequenceSplit:
    """The same split, its items in turn of one of `genres`."""
    old = split.catalogue
    catalogue = Catalogue(
        item_ids=old.item_ids[1:],
        titles=old.titles[1:],
        descriptions=old.descriptions[1:],
        categories=[genres[number % len(genres) :][:1] if genres else () for number in range(len(old))],
        interactions=old.interactions[1:],
    )
    return replace(split, catalogue=catalogue)


@pytest.fixture
def split() -> SequenceSplit:
    return with_genres(tiny_split(users=200))


@pytest.fixture
def llm() -> LanguageModel:
    return tiny_llm(interface=True)


def test_the_favourite_is_the_genre_of_most_items(split: SequenceSplit) -> None:
    """Items 1, 4, 7 are comedies, 2 and 5 dramas; of equal counts the rarer genre wins; no items, no favourite."""
    catalogue = split.catalogue
    names = list(catalogue.genres)
    found = favorite_genres(catalogue, [np.array([1, 4, 2]), np.array([2, 5, 7]), np.array([], dtype=np.int64)])
    assert [names[found[0]], names[found[1]], found[2]] == ["Comedy", "Drama", -1]
    uneven = replace_categories(catalogue, [("Comedy",), ("Comedy",), ("War",)])
    assert list(uneven.genres)[favorite_genres(uneven, [np.array([1, 3])])[0]] == "War"


def replace_categories(catalogue: Catalogue, categories: list[tuple[str, ...]]) -> Catalogue:
    """Its first items with these categories."""
    count = len(categories)
    return Catalogue(
        item_ids=catalogue.item_ids[1 : count + 1],
        titles=catalogue.titles[1 : count + 1],
        descriptions=[""] * count,
        categories=categories,
        interactions=catalogue.interactions[1 : count + 1],
    )


def test_fitted_genres_tell_favourites_from_users(split: SequenceSplit, llm: LanguageModel) -> None:
    """By the LLM's law they name the favourite of more users that they were fitted to than the mean items do."""
    contents = tiny_contents(split)
    histories = split.train[::2]
    favorites = favorite_genres(split.catalogue, histories)
    reader = ExactReader(contents.projector, llm.interface)

    def agreement(genres: torch.Tensor) -> float:
        users = represent_all(contents.backbone, histories, contents.cf_vectors)
        with torch.no_grad():
            logits = reader.logits(reader.users(users, contents.joint_item, histories), reader.items(genres))
        return float((logits.argmax(dim=1).numpy() == favorites).mean())

    fitted = fit_genres(split, contents, llm.interface, PromptConfig(history_items=50), GenreConfig())
    assert fitted.shape == contents.joint_genre.shape
    assert agreement(fitted) > agreement(contents.joint_genre) + 0.05


def agreement_of(
    split: SequenceSplit, model: CatalogueModel, llm: LanguageModel, composer: PromptComposer
) -> dict[str, Estimate]:
    async def ask() -> dict[str, Estimate]:
        async with in_process(llm) as engine:
            reader = GenreReader(model, llm.interface)
            quiz = GenreQuiz.of(split, users=1000)
            return genre_agreement(quiz, await genre_guesses(quiz, model, composer, engine, reader))

    return asyncio.run(ask())


def test_agreement_is_measured_on_users_not_learned_from(split: SequenceSplit, llm: LanguageModel) -> None:
    """Told everything, counting agrees always; the most common favourite is that of the users learned from."""
    contents = tiny_contents(split)
    config = PromptConfig(history_items=50)
    composer = PromptComposer(contents, config, llm.tokenizer, llm.context_length)
    shares = agreement_of(split, contents, llm, composer)
    assert shares[COUNTING].mean == 1.0
    taught = favorite_genres(split.catalogue, split.train[::2])
    histories = [np.concatenate([split.train[user], [split.validation[user]]]) for user in range(1, 200, 2)]
    expected = (favorite_genres(split.catalogue, histories) == np.bincount(taught).argmax()).mean()
    assert shares[MOST_COMMON].mean == pytest.approx(expected)
    assert set(shares) == {MOST_COMMON, COUNTING, READ_EXACTLY, "LLM-Only", "A-LLMRec"}
    for share in shares.values():
        assert share.low <= share.mean <= share.high


def test_without_genres_there_is_nothing_to_measure(llm: LanguageModel) -> None:
    """A catalogue without categories gives no agreement and no genre tokens."""
    split = with_genres(tiny_split(), ())
    contents = tiny_contents(split)
    composer = PromptComposer(contents, PromptConfig(), llm.tokenizer, llm.context_length)
    assert agreement_of(split, contents, llm, composer) == {}
    assert len(contents.joint_genre) == 0


def test_foresight_is_of_the_test_item(split: SequenceSplit) -> None:
    """Everybody is told comedies: right for those whose test item is 1, 4, 7, ..."""
    quiz = GenreQuiz.of(split, users=1000)
    comedy = list(split.catalogue.genres).index("Comedy")
    shares = genre_foresight(quiz, split.catalogue, {"comedy": np.full(len(quiz.taken), comedy)})
    test = {user_id: split.test[row] for row, user_id in enumerate(split.user_ids)}
    assert shares["comedy"].mean == np.mean([test[user_id] % 3 == 1 for user_id in quiz.user_ids])
