"""Favourite genres: what the LLM is told of a genre, and how often it then names the right one.

A genre is a candidate like an item. The mean of its items says little: whether a user has many of a genre depends as
much on how common it is. So what the LLM is told of it is fitted to the favourites of half of the users; the other
half is there to measure.

Axes: E users, G genres, J joint size, Y1 what a prompt says of a user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

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
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.metrics import Estimate, share_estimate

MOST_COMMON = "Most common favourite"
COUNTING = "Counting the history told"
READ_EXACTLY = "Tokens, read exactly"
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
    histories, user_ids = split.train[::2], split.user_ids[::2]
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
    """

    user_ids: list[str]
    histories: list[np.ndarray]
    favorites: np.ndarray
    taught: np.ndarray

    @classmethod
    def of(cls, split: SequenceSplit, users: int, seed: int = 0) -> GenreQuiz:
        """About at most so many users of the half that `fit_genres` did not see."""
        taught = favorite_genres(split.catalogue, split.train[::2])
        others = np.random.default_rng(seed).permutation(np.arange(1, len(split), 2))[:users]
        histories = [split.history(int(user), Holdout.TEST) for user in others]
        favorites = favorite_genres(split.catalogue, histories)
        asked = np.flatnonzero(favorites >= 0)
        user_ids = [split.user_ids[others[row]] for row in asked]
        return cls(user_ids, [histories[row] for row in asked], favorites[asked], taught[taught >= 0])

    @property
    def is_empty(self) -> bool:
        """Whether there is nobody to ask about, or nothing was learned."""
        return not len(self.favorites) or not len(self.taught)


async def genre_agreement(
    quiz: GenreQuiz,
    model: CatalogueModel,
    composer: PromptComposer,
    engine: LLMEngine,
    reader: GenreReader | None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """How often each way of guessing names the genre that most items of the user's history have.

    Args:
        quiz: about whom.
        model: of the catalogue.
        composer: asks.
        engine: answers.
        reader: reads the tokens exactly, if anything can.
        seed: of the intervals.

    Returns:
        By name the share with its 95 % interval; empty without genres.
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
    untaught = composer.template.config.injection is Injection.NONE
    for name, injection in LLM_VARIANTS.items():
        if untaught and injection is not Injection.NONE:
            continue
        guessed = guesses[name] = np.zeros(len(quiz.favorites), dtype=np.int64)

        async def ask(row: int, injection: Injection = injection, guessed: np.ndarray = guessed) -> None:
            history = quiz.histories[row].tolist()
            question = composer.favorite_genre(users_E_D[row], history, injection=injection)
            guessed[row] = (await answer(engine, question)).argmax()

        await each(ask, range(len(quiz.histories)))
    return {name: share_estimate(guess == quiz.favorites, seed=seed) for name, guess in guesses.items()}
