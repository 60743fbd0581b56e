"""Favourite genres: what the LLM is told of a genre, and how often it then names the right one.

A genre is a candidate like an item. The mean of its items says little: whether a user has many of a genre depends as
much on how common it is. So what the LLM is told of it is fitted to the favourites of half of the users; the other
half is there to measure.

Axes: E users, G genres, J joint size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from models.backbones import represent_all
from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import Catalogue
from models.composer import PromptComposer
from models.config import Config
from models.llm.law import ExactReader
from models.llm.loading import LanguageModel
from models.llm.token_interface import TokenInterface
from models.prompts.layout import Injection
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.llm_scores import answer
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


def fit_genres(
    split: SequenceSplit,
    contents: CatalogueModel,
    interface: TokenInterface,
    history_items: int,
    config: GenreConfig,
) -> torch.Tensor:
    """(G, J) joint embeddings of the genres from which half of the users' favourites follow by the LLM's law.

    Args:
        split: training sequences; every second user, the first included, is taken.
        contents: with trained projections, and the mean items to start from.
        interface: the LLM's law.
        history_items: items told in a prompt.
        config: how.
    """
    histories = [items for items in split.train[::2] if len(items)]
    favorites = favorite_genres(contents.catalogue, histories)
    rows = np.flatnonzero(favorites >= 0)
    start_G_J = contents.joint_genre
    if not len(rows):
        return start_G_J
    histories = [histories[row] for row in rows]
    users_E_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    told = [items[max(0, len(items) - history_items) :] for items in histories]
    targets_E = torch.from_numpy(favorites[rows]).to(start_G_J.device)
    reader = ExactReader(contents.projector, interface.to(users_E_D.device))
    with torch.no_grad():
        users_E_L = reader.users(users_E_D, contents.joint_item, told)
    genres_G_J = start_G_J.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([genres_G_J], lr=config.learning_rate)
    for _ in range(config.steps):
        logits_E_G = reader.logits(users_E_L, reader.items(genres_G_J))
        pull = config.pull * (genres_G_J - start_G_J).square().sum()
        loss = functional.cross_entropy(logits_E_G, targets_E) + pull
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return genres_G_J.detach()


def genre_agreement(
    split: SequenceSplit,
    contents: CatalogueModel,
    llm: LanguageModel,
    composer: PromptComposer,
    users: int,
    batch_tokens: int,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Estimate]:
    """How often each way of guessing names the genre that most items of the user's history have.

    Args:
        split: the data; histories are those before the test item.
        contents: the tables and networks.
        llm: answers.
        composer: asks.
        users: at most this many of the users that `fit_genres` did not see.
        batch_tokens: prompt tokens, padding included, of one forward pass.
        seed: of which users, and of the intervals.
        report: called with the number of questions answered since the last call, and of all there are.

    Returns:
        By name the share with its 95 % interval; empty without genres.
    """
    catalogue = contents.catalogue
    if len(catalogue.genres) < 2:
        return {}
    taught = favorite_genres(catalogue, split.train[::2])
    others = np.random.default_rng(seed).permutation(np.arange(1, len(split), 2))[:users]
    histories = [split.history(int(user), Holdout.TEST) for user in others]
    favorites = favorite_genres(catalogue, histories)
    histories = [history for history, favorite in zip(histories, favorites, strict=True) if favorite >= 0]
    favorites = favorites[favorites >= 0]
    if not len(favorites) or not (taught >= 0).any():
        return {}
    told = [history[max(0, len(history) - composer.template.config.history_items) :] for history in histories]
    users_E_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    guesses = {
        MOST_COMMON: np.full(len(favorites), np.bincount(taught[taught >= 0]).argmax()),
        COUNTING: favorite_genres(catalogue, told),
    }
    if llm.interface is not None:
        reader = ExactReader(contents.projector, llm.interface.to(users_E_D.device))
        with torch.inference_mode():
            users_E_L = reader.users(users_E_D, contents.joint_item, told)
            logits_E_G = reader.logits(users_E_L, reader.items(contents.joint_genre))
        guesses[READ_EXACTLY] = logits_E_G.argmax(dim=1).cpu().numpy()

    def answered(done: int) -> None:
        if report is not None:
            report(done, len(LLM_VARIANTS) * len(histories))

    for name, injection in LLM_VARIANTS.items():
        questions = (
            composer.favorite_genre(user_D, history.tolist(), injection=injection)
            for user_D, history in zip(users_E_D, histories, strict=True)
        )
        answers = answer(llm, questions, batch_tokens, answered)
        guesses[name] = np.asarray([log_probs.argmax() for log_probs in answers])
    return {name: share_estimate(guess == favorites, seed=seed) for name, guess in guesses.items()}
