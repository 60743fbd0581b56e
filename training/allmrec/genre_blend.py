"""Fits how favourite genres are weighed: the LLM's probabilities, the history's own genres, x_u and rarity.

Two things are wanted of the weights, and they are not the same. Probabilities are to be those of the genres of what
users take next: that is a conditional logit on validation items. And the first genre is to be the history's favourite
no more rarely than counting what a prompt tells finds it. So favourites are targets too, and count as little as makes
the second true; the scale is then that of the first. All of it is judged out of fold, on users whose favourites the
genres' tokens were not fitted to.

Axes: E users, or of a fit users times targets; G genres, F signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from models.bundle.blend import Blend, GenreBlends, SignalWeight, standardised
from models.catalogue import PADDING_ITEM
from models.composer import PromptComposer
from models.config import Config
from models.engines.base import LLMEngine
from models.rankers.llm import answer, each
from models.recommending.genres import GenreSignals, genre_members
from training.allmrec.genres import WEIGHED, favorite_genres
from training.allmrec.logit import FEWEST_USERS, FOLDS, fit_logit
from training.data.splits import Holdout, SequenceSplit

FEWEST_GENRES = 2


class GenreBlendConfig(Config):
    """How genres' weights are fitted.

    Attributes:
        users: at most this many validation users are asked the LLM about.
        favorite_weights: how much a user's favourite may count beside what the user took next; the least is taken
            with which it is named no more rarely than by counting.
        penalty: of squared weights, in nats.
        seed: of users and folds.
    """

    users: int = Field(500, gt=0)
    favorite_weights: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
    penalty: float = Field(3.0, ge=0)
    seed: int = 0


@dataclass(frozen=True)
class GenreLessons:
    """What is known of validation users.

    Attributes:
        scores: by id of `GenreSignals` (E, G).
        taken: (E, G) shares of the genres of the item that each took next; zeros where it has none.
        favorites: (E,) the genre of most items of the whole history.
        counted: (E,) the same of what a prompt tells of it.
    """

    scores: Mapping[str, np.ndarray]
    taken: np.ndarray
    favorites: np.ndarray
    counted: np.ndarray

    def __len__(self) -> int:
        """How many users E."""
        return len(self.favorites)

    def agreement(self, named: np.ndarray) -> float:
        """The share of users whose favourite is the one named (E,)."""
        return float((named == self.favorites).mean())


async def genre_lessons(
    split: SequenceSplit, composer: PromptComposer, engine: LLMEngine, config: GenreBlendConfig
) -> GenreLessons:
    """Ask the LLM, and count, about validation users who have a favourite."""
    rows = np.random.default_rng(config.seed).permutation(np.arange(len(split))[WEIGHED])
    rows = rows[split.validation[rows] != PADDING_ITEM]
    favorites = favorite_genres(split.catalogue, [split.history(int(row), Holdout.VALIDATION) for row in rows])
    rows, favorites = rows[favorites >= 0][: config.users], favorites[favorites >= 0][: config.users]
    histories = [split.history(int(row), Holdout.VALIDATION) for row in rows]
    users_E_D = composer.model.user_vectors(histories, [split.user_ids[row] for row in rows])
    shown = [composer.template.config.shown(history) for history in histories]
    llm_E_G = np.zeros((len(rows), len(composer.genres)))

    async def ask(row: int) -> None:
        llm_E_G[row] = await answer(engine, composer.favorite_genre(users_E_D[row], shown[row].tolist()))

    await each(ask, range(len(rows)))
    signals = GenreSignals(composer)
    found = [signals.of(users_E_D[row], history) for row, history in enumerate(histories)]
    scores = {name: np.array([scores[name] for scores in found]) for name in signals.LOCAL}
    taken_E_G = genre_members(split.catalogue)[split.validation[rows]]
    taken_E_G = taken_E_G / np.maximum(taken_E_G.sum(axis=1, keepdims=True), 1.0)
    return GenreLessons({**scores, signals.LLM: llm_E_G}, taken_E_G, favorites, favorite_genres(split.catalogue, shown))


class GenreFit:
    """Fits one blend of genres.

    Args:
        lessons: of E users.
        signals: ids of those that are weighed.
        config: how.
    """

    def __init__(self, lessons: GenreLessons, signals: Sequence[str], config: GenreBlendConfig) -> None:
        self._lessons, self._config = lessons, config
        self._signals = [self._measured(name) for name in signals]
        features = [
            standardised(lessons.scores[signal.id], signal.centred, signal.mean, signal.scale)
            for signal in self._signals
        ]
        self._features_E_G_F = np.stack(features, axis=2)
        self._folds_E = np.random.default_rng(config.seed).permutation(len(lessons)) % FOLDS

    def fit(self) -> Blend:
        """The blend with the least weight of favourites that will do, or else the one that names most of them."""
        lessons, agreements = self._lessons, []
        enough = lessons.agreement(lessons.counted)
        for favorite_weight in self._config.favorite_weights:
            logits_E_G = self._out_of_fold(favorite_weight)
            agreements.append(lessons.agreement(logits_E_G.argmax(axis=1)))
            if agreements[-1] >= enough:
                break
        chosen = self._config.favorite_weights[int(np.argmax(agreements))]
        weights_F = self._weights(np.ones(len(lessons), dtype=bool), chosen)
        signals = tuple(
            signal.model_copy(update={"weight": float(weight)})
            for signal, weight in zip(self._signals, weights_F, strict=True)
        )
        logits_E_G = self._out_of_fold(chosen)
        validation = {
            "favorite_weight": chosen,
            "agreement": lessons.agreement(logits_E_G.argmax(axis=1)),
            "log_likelihood": self._log_likelihood(logits_E_G),
        }
        return Blend(signals=signals, cold_below=0.0, validation=validation)

    def _log_likelihood(self, logits_E_G: np.ndarray) -> float:
        """Of the genres that users took next, in nats a user; 0 if nobody took any."""
        taken = self._lessons.taken.sum(axis=1) > 0
        if not taken.any():
            return 0.0
        top_E_1 = logits_E_G.max(axis=1, keepdims=True)
        log_probs_E_G = logits_E_G - top_E_1 - np.log(np.exp(logits_E_G - top_E_1).sum(axis=1, keepdims=True))
        return float((log_probs_E_G * self._lessons.taken)[taken].sum(axis=1).mean())

    def _out_of_fold(self, favorite_weight: float) -> np.ndarray:
        """(E, G) logits of every user by weights fitted to others."""
        logits_E_G = np.zeros(self._features_E_G_F.shape[:2])
        for fold in range(FOLDS):
            inside_E = self._folds_E == fold
            logits_E_G[inside_E] = self._features_E_G_F[inside_E] @ self._weights(~inside_E, favorite_weight)
        return logits_E_G

    def _weights(self, users_E: np.ndarray, favorite_weight: float) -> np.ndarray:
        """(F,) fitted to what some users took and like best, in the scale of what they took."""
        taken = self._targets(self._lessons.taken * users_E[:, None])
        liked_E_G = np.eye(self._features_E_G_F.shape[1])[self._lessons.favorites]
        liked = self._targets(liked_E_G * users_E[:, None] * favorite_weight)
        features_E_G_F, targets_E = (np.concatenate(parts) for parts in zip(taken, liked, strict=True))
        weights_F = _fitted(features_E_G_F, targets_E, self._config.penalty, np.zeros(len(self._signals)))
        scaled = (taken[0] @ weights_F)[..., None], taken[1]
        (scale,) = _fitted(*scaled, self._config.penalty, np.ones(1))
        return weights_F * scale if scale > 0 else weights_F

    def _targets(self, weights_E_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The features with each target first, one row a target, and how much each counts."""
        users, genres = np.nonzero(weights_E_G)
        features_E_G_F = self._features_E_G_F[users]
        rows = np.arange(len(users))
        features_E_G_F[rows, 0], features_E_G_F[rows, genres] = (
            features_E_G_F[rows, genres],
            features_E_G_F[rows, 0].copy(),
        )
        return features_E_G_F, weights_E_G[users, genres]

    def _measured(self, name: str) -> SignalWeight:
        """A signal with the spread of its scores about each user's mean."""
        spread = float(standardised(self._lessons.scores[name], True, 0.0, 1.0).std())
        return SignalWeight(
            id=name,
            title=GenreSignals.TITLES[name],
            centred=True,
            mean=0.0,
            scale=spread or 1.0,
            weight=0.0,
            scarcity_weight=0.0,
        )


def _fitted(features_E_G_F: np.ndarray, targets_E: np.ndarray, penalty: float, prior_F: np.ndarray) -> np.ndarray:
    """(F,) see `fit_logit`; the prior where there is nothing to fit to."""
    if not len(targets_E):
        return prior_F
    return fit_logit(features_E_G_F, np.ones(features_E_G_F.shape[:2], dtype=bool), targets_E, penalty, prior_F)


async def fit_genre_blends(
    split: SequenceSplit, composer: PromptComposer, engine: LLMEngine, config: GenreBlendConfig
) -> GenreBlends | None:
    """Both blends of genres, or None if there are too few users or genres.

    Args:
        split: the data; its validation items are looked at, its test items never.
        composer: asks.
        engine: answers.
        config: how.
    """
    if len(composer.genres) < FEWEST_GENRES:
        return None
    lessons = await genre_lessons(split, composer, engine, config)
    if len(lessons) < FEWEST_USERS:
        return None
    without = GenreFit(lessons, GenreSignals.LOCAL, config).fit()
    with_llm = GenreFit(lessons, (GenreSignals.LLM, *GenreSignals.LOCAL), config).fit()
    validation = {
        "users": float(len(lessons)),
        "counting": lessons.agreement(lessons.counted),
        "llm": lessons.agreement(lessons.scores[GenreSignals.LLM].argmax(axis=1)),
    }
    return GenreBlends(blend=without, llm=with_llm, validation=validation)
