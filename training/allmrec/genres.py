"""Favourite genres: what the LLM is told of a genre, and how often it then names the right one.

A genre is a candidate like an item. The mean of its items says little: whether a user has many of a genre depends as
much on how common it is. So what the LLM is told of it is fitted to the favourites of half of the users; the other
half is there to measure.

Axes: E users, G genres, J joint size, Y1 what a prompt says of a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from models.bundle.blend import GenreBlends
from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import Catalogue
from models.composer import PromptComposer
from models.config import Config
from models.engines.base import LLMEngine
from models.llm.law import ExactReader
from models.llm.token_interface import TokenInterface
from models.prompts.layout import Injection
from models.prompts.template import PromptConfig
from models.rankers.llm import answer, each
from models.recommending.genres import GenreRanker, genre_members
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.metrics import Estimate, share_estimate

MOST_COMMON = "Most common favourite"
COUNTING = "Counting the history told"
READ_EXACTLY = "Tokens, read exactly"
BLENDED, BLENDED_WITH_LLM = "Blend without the LLM", "Blend with the LLM"
TAUGHT, UNTAUGHT = slice(0, None, 2), slice(1, None, 2)
"""Users whose favourites what the LLM is told of genres is fitted to, and the others."""
WEIGHED, UNWEIGHED = slice(1, None, 4), slice(3, None, 4)
"""Of the others, those that genres' blends are fitted to (`training.allmrec.genre_blend`), and those that are left."""
LLM_VARIANTS = {"LLM-Only": Injection.NONE, "A-LLMRec": Injection.ALL}


class GenreConfig(Config):
    """How what the LLM is told of a genre is fitted.

    Attributes:
        steps: of Adam, over all users at once.
        learning_rate: of Adam.
        pull: weight of the squared distance from the genre's mean item.
    """

    steps: int = Field(100, ge=0)
    learning_rate: float = Field(1e-2, gt=0)
    pull: float = Field(1e-2, ge=0)


def favorite_genres(catalogue: Catalogue, histories: Sequence[np.ndarray]) -> np.ndarray:
    """(E,) the genre that most items of each history have, the rarer of equal ones; -1 if none has any."""
    if not catalogue.genres or not len(histories):
        return np.full(len(histories), -1)
    members = np.zeros((len(catalogue) + 1, len(catalogue.genres)))
    for genre, items in enumerate(catalogue.genres.values()):
        members[items, genre] = 1
    counts_E_G = np.stack([members[items].sum(axis=0) for items in histories])
    favorites = (counts_E_G - members.sum(axis=0) / (len(members) + 1)).argmax(axis=1)
    return np.where(counts_E_G.any(axis=1), favorites, -1)


class GenreReader:
    """Reads the tokens of genre prompts by the token law.

    Args:
        model: of the catalogue.
        interface: the LLM's.
    """

    def __init__(self, model: CatalogueModel, interface: TokenInterface) -> None:
        self._model = model
        self._reader = ExactReader(model.projector, interface.to(model.cf_vectors.device))

    @torch.no_grad()
    def users(self, users_E_D: torch.Tensor, shown: Sequence[np.ndarray]) -> torch.Tensor:
        """(E, L) what prompts say of users x_u (E, D), with the items shown."""
        return self._reader.users(users_E_D, self._model.joint_item, shown)

    def logits(self, users_E_Y1: torch.Tensor, genres_G_2J: torch.Tensor) -> torch.Tensor:
        """(E, G) the law's logits of genres by their joint embeddings (G, 2d')."""
        return self._reader.logits(users_E_Y1, self._reader.items(genres_G_2J))


def fit_genres(
    split: SequenceSplit,
    model: CatalogueModel,
    interface: TokenInterface,
    prompt: PromptConfig,
    config: GenreConfig,
) -> torch.Tensor:
    """(G, 2d') joint embeddings of the genres from which half of the users' favourites follow by the LLM's law.

    Args:
        split: training sequences; every second user, the first included, is taken.
        model: with trained projections, and the mean items to start from.
        interface: the LLM's law.
        prompt: says how much of a history is shown.
        config: how.
    """
    histories, user_ids = split.train[TAUGHT], split.user_ids[TAUGHT]
    favorites = favorite_genres(model.catalogue, histories)
    rows = np.flatnonzero(favorites >= 0).tolist()
    start_G_2J = model.joint_genre
    if not rows:
        return start_G_2J
    histories, user_ids = [histories[row] for row in rows], [user_ids[row] for row in rows]
    targets_E = torch.from_numpy(favorites[rows]).to(start_G_2J.device)
    reader = GenreReader(model, interface)
    users_E_D = model.user_vectors(histories, user_ids).clone()
    users_E_Y1 = reader.users(users_E_D, [prompt.shown(items) for items in histories])
    genres_G_2J = start_G_2J.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([genres_G_2J], lr=config.learning_rate)
    for _ in range(config.steps):
        pull = config.pull * (genres_G_2J - start_G_2J).square().sum()
        loss = functional.cross_entropy(reader.logits(users_E_Y1, genres_G_2J), targets_E) + pull
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return genres_G_2J.detach()


@dataclass(frozen=True)
class GenreQuiz:
    """Users whose favourite genres were not learned from, and what is known of them.

    Attributes:
        user_ids: of E users.
        histories: E arrays of item numbers, before the test item.
        favorites: (E,) the genre that most items of each history have.
        taught: the favourites that `fit_genres` saw.
        taken: (E,) test items.
    """

    user_ids: list[str]
    histories: list[np.ndarray]
    favorites: np.ndarray
    taught: np.ndarray
    taken: np.ndarray

    @classmethod
    def of(cls, split: SequenceSplit, users: int, seed: int = 0, among: slice = UNTAUGHT) -> GenreQuiz:
        """About at most so many users, of those that `fit_genres` did not see or of a part of them."""
        taught = favorite_genres(split.catalogue, split.train[TAUGHT])
        others = np.random.default_rng(seed).permutation(np.arange(len(split))[among])[:users]
        histories = [split.history(int(user), Holdout.TEST) for user in others]
        favorites = favorite_genres(split.catalogue, histories)
        asked = np.flatnonzero(favorites >= 0)
        user_ids = [split.user_ids[others[row]] for row in asked]
        kept = [histories[row] for row in asked]
        return cls(user_ids, kept, favorites[asked], taught[taught >= 0], split.test[others[asked]])

    @property
    def is_empty(self) -> bool:
        """Whether there is nobody to ask about, or nothing was learned."""
        return not len(self.favorites) or not len(self.taught)


async def genre_guesses(
    quiz: GenreQuiz,
    model: CatalogueModel,
    composer: PromptComposer,
    engine: LLMEngine,
    reader: GenreReader | None,
    blends: GenreBlends | None = None,
) -> dict[str, np.ndarray]:
    """The genre that each way of guessing names, of every user.

    Args:
        quiz: about whom.
        model: of the catalogue.
        composer: asks.
        engine: answers.
        reader: reads the tokens exactly, if anything can.
        blends: of genres, if they were fitted; on none of these users.

    Returns:
        By name (E,) rows of `Catalogue.genres`; empty without genres.
    """
    if len(model.catalogue.genres) < 2 or quiz.is_empty:
        return {}
    shown = [composer.template.config.shown(history) for history in quiz.histories]
    users_E_D = model.user_vectors(quiz.histories, quiz.user_ids)
    guesses = {
        MOST_COMMON: np.full(len(quiz.favorites), np.bincount(quiz.taught).argmax()),
        COUNTING: favorite_genres(model.catalogue, shown),
    }
    if reader is not None:
        logits_E_G = reader.logits(reader.users(users_E_D, shown), model.joint_genre)
        guesses[READ_EXACTLY] = logits_E_G.argmax(dim=1).cpu().numpy()
    served = composer.template.config.injection
    said: dict[Injection, np.ndarray] = {}
    for name, injection in LLM_VARIANTS.items():
        if served is not Injection.NONE or injection is Injection.NONE:
            said[injection] = await _asked(quiz, users_E_D, composer, engine, injection)
            guesses[name] = said[injection].argmax(axis=1)
    if blends is not None:
        by_llm_E_G = said[served] if served in said else await _asked(quiz, users_E_D, composer, engine, served)
        ranker = GenreRanker(composer, blends)
        for name, answers in {BLENDED: [None] * len(by_llm_E_G), BLENDED_WITH_LLM: list(by_llm_E_G)}.items():
            rows = zip(users_E_D, quiz.histories, answers, strict=True)
            guesses[name] = np.asarray([ranker.probabilities(*row).argmax() for row in rows])
    return guesses


def genre_agreement(quiz: GenreQuiz, guesses: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, Estimate]:
    """How often each of `guesses` (E,) is the genre that most items of the user's history have."""
    return {name: share_estimate(guess == quiz.favorites, seed=seed) for name, guess in guesses.items()}


def genre_foresight(
    quiz: GenreQuiz, catalogue: Catalogue, guesses: Mapping[str, np.ndarray], seed: int = 0
) -> dict[str, Estimate]:
    """How often what the user took next, the test item, has the genre guessed (E,)."""
    taken_E_G = genre_members(catalogue)[quiz.taken] > 0
    rows = np.arange(len(taken_E_G))
    return {name: share_estimate((guess >= 0) & taken_E_G[rows, guess], seed=seed) for name, guess in guesses.items()}


async def _asked(
    quiz: GenreQuiz, users_E_D: torch.Tensor, composer: PromptComposer, engine: LLMEngine, injection: Injection
) -> np.ndarray:
    """(E, G) the LLM's log-probabilities."""
    log_probs_E_G = np.zeros((len(quiz.histories), len(composer.genres)))

    async def ask(row: int) -> None:
        history = quiz.histories[row].tolist()
        question = composer.favorite_genre(users_E_D[row], history, injection=injection)
        log_probs_E_G[row] = await answer(engine, question)

    await each(ask, range(len(quiz.histories)))
    return log_probs_E_G
