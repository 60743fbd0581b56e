"""The weights of one blend, and which signals it has.

A signal whose lift is not certain is left out, then the weights are fitted again. All that is reported is out of fold:
no user's figure comes from weights that were fitted to that user.

Axes: E users, times draws of negatives, C candidates of which the first is the positive, F signals, G features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.bundle.blend import Blend, Lift, SignalWeight, scarcity, standardised
from models.rankers.base import Ranker
from training.allmrec.blend.config import BlendConfig
from training.allmrec.blend.scored import Scored
from training.allmrec.logit import FOLDS, curvature, fit_logit, log_likelihoods
from training.evaluation.metrics import hit_at, ndcg_at, paired_difference, positive_ranks


@dataclass(frozen=True)
class Prior:
    """What is known of weights before: a blend of some of the signals, fitted on more users.

    Attributes:
        blend: of S signals.
        precision: (2S + 1, 2S + 1) how much its users say of w, v and b, in the units of the blend.
    """

    blend: Blend
    precision: np.ndarray


class BlendFit:
    """Fits one blend.

    Args:
        scored: the signals' scores.
        config: how.
        prior: which the weights are pulled to.
        trust: what share of the prior's users count beside these.
        doubt: of what the prior does not know: in place of the config's penalty, where that is less.
    """

    def __init__(
        self,
        scored: Scored,
        config: BlendConfig,
        prior: Prior | None = None,
        trust: float = 1.0,
        doubt: float = 0.0,
    ) -> None:
        self._scored, self._config = scored, config
        self._real = scored.real
        self._scarcity = scarcity(scored.interactions, scored.cold_below)
        self._signals = [self._measured(ranker) for ranker in scored.rankers]
        values = [
            standardised(scored.scores[signal.id], signal.centred, signal.mean, signal.scale)
            for signal in self._signals
        ]
        columns = [*values, *(value * self._scarcity for value in values), self._scarcity]
        self._features = np.stack(columns, axis=2)
        self._prior = np.zeros(self._features.shape[2])
        self._precision = config.penalty * np.eye(len(self._prior))
        if prior is not None:
            self._take(prior, trust, max(doubt, config.penalty))
        folds = np.random.default_rng(config.seed).permutation(int(scored.users.max()) + 1) % FOLDS
        self._folds = folds[scored.users]

    def fit(
        self,
        always: Sequence[str] = (),
        one_of: Sequence[str] = (),
        together: Sequence[Sequence[str]] = (),
        cold_weight: float | None = None,
    ) -> Blend:
        """The blend of the signals whose lift is certain.

        Args:
            always: ids of those that are kept whatever it is.
            one_of: one of these at least is kept.
            together: signals that mean something only with each other: their lift is that of all of them, and they are
                left out together.
            cold_weight: how much users with cold positives count; chosen by the frontier if not given.
        """
        kept = list(range(len(self._signals)))
        left_out: dict[str, Lift] = {}
        while True:
            whole = self.out_of_fold(kept, 1.0)
            units = self._units(kept, together)
            lifts = {number: lift for unit in units for lift in (self._lift(whole, kept, unit),) for number in unit}
            needed = self._needed([self._signals[number].id for number in kept], always, one_of)
            doubtful = [
                unit
                for unit in units
                if not lifts[unit[0]].is_certain and not any(self._signals[number].id in needed for number in unit)
            ]
            if not doubtful or len(units) == 1:
                break
            for number in min(doubtful, key=lambda unit: lifts[unit[0]].log_likelihood[0]):
                left_out[self._signals[number].id] = lifts[number]
                kept.remove(number)
        return self._blend(kept, lifts, left_out, cold_weight)

    @staticmethod
    def _needed(kept: Sequence[str], always: Sequence[str], one_of: Sequence[str]) -> set[str]:
        """Which of the signals in `kept` cannot be left out next."""
        left = [name for name in one_of if name in kept]
        return {*always, *(left if len(left) == 1 else [])}

    def prior(self, blend: Blend) -> Prior:
        """What this fit's users say of `blend`, which it made."""
        numbers = {signal.id: number for number, signal in enumerate(self._signals)}
        columns = self._columns([numbers[signal.id] for signal in blend.signals])
        weights = [signal.weight for signal in blend.signals], [signal.scarcity_weight for signal in blend.signals]
        known = np.asarray([*weights[0], *weights[1], blend.scarcity_bias])
        everyone = self._user_weights(np.ones(len(self._real), dtype=bool), blend.validation["cold_weight"])
        return Prior(blend, curvature(self._features[:, :, columns], self._real, everyone, known))

    def log_likelihoods(self, cold_weight: float = 1.0) -> np.ndarray:
        """(E,) those of the positives by all signals, out of fold; each as much as its user counts, 1 in the mean."""
        weights_E = self._user_weights(np.ones(len(self._real), dtype=bool), cold_weight)
        found_E = log_likelihoods(self.out_of_fold(range(len(self._signals)), cold_weight))
        return np.asarray(found_E * weights_E / weights_E.mean())

    def lift_of(self, ids: Sequence[str]) -> Lift:
        """What some signals together are worth beside all others."""
        numbers = range(len(self._signals))
        others = [number for number in numbers if self._signals[number].id not in ids]
        rest_E_C = self.out_of_fold(others, 1.0) if others else np.where(self._real, 0.0, -np.inf)
        return lift_over(self.out_of_fold(list(numbers), 1.0), rest_E_C, self._scored.users)

    def _blend(
        self, kept: list[int], lifts: Mapping[int, Lift], left_out: dict[str, Lift], cold_weight: float | None
    ) -> Blend:
        chosen, validation = self._cold_weight(kept)
        if cold_weight is not None:
            chosen = validation["cold_weight"] = cold_weight
        everyone = np.ones(len(self._real), dtype=bool)
        weights = self._weights(kept, everyone, chosen)
        size = len(kept)
        return Blend(
            signals=tuple(
                self._signals[number].model_copy(
                    update={
                        "weight": float(weights[place]),
                        "scarcity_weight": float(weights[size + place]),
                        "lift": lifts[number],
                    }
                )
                for place, number in enumerate(kept)
            ),
            left_out=left_out,
            cold_below=self._scored.cold_below,
            scarcity_bias=float(weights[-1]),
            validation=validation,
        )

    def _cold_weight(self, kept: list[int]) -> tuple[float, dict[str, float]]:
        """How much users with cold positives count, and the frontier of what that does out of fold."""
        frontier: dict[str, float] = {}
        chosen, allowed = 1.0, 0.0
        for weight in self._config.cold_weights:
            logits = self.out_of_fold(kept, weight)
            ranks = positive_ranks(logits)
            ndcg, cold = float(ndcg_at(ranks, 10).mean()), ranks[self._scored.cold]
            frontier |= {
                f"cold_weight_{weight:g}.hit@1": float(hit_at(ranks, 1).mean()),
                f"cold_weight_{weight:g}.ndcg@10": ndcg,
                f"cold_weight_{weight:g}.cold.hit@1": float(hit_at(cold, 1).mean()) if len(cold) else 0.0,
            }
            allowed = allowed or ndcg * (1 - self._config.cold_cost)
            if ndcg >= allowed:
                chosen = weight
        return chosen, {**frontier, "cold_weight": chosen}

    def _units(self, kept: Sequence[int], together: Sequence[Sequence[str]]) -> list[list[int]]:
        """The signals in `kept`, those that are judged together in one list."""
        home = {name: place for place, names in enumerate(together) for name in names}
        units: dict[int | str, list[int]] = {}
        for number in kept:
            name = self._signals[number].id
            units.setdefault(home.get(name, name), []).append(number)
        return list(units.values())

    def _lift(self, whole_E_C: np.ndarray, kept: list[int], without: Sequence[int]) -> Lift:
        """What all signals have that all but some have not, user by user."""
        others = [number for number in kept if number not in without]
        rest_E_C = self.out_of_fold(others, 1.0) if others else np.where(self._real, 0.0, -np.inf)
        return lift_over(whole_E_C, rest_E_C, self._scored.users)

    def out_of_fold(self, kept: Sequence[int], cold_weight: float = 1.0) -> np.ndarray:
        """(E, C) logits of every user by weights fitted to others."""
        logits_E_C = np.full(self._real.shape, -np.inf)
        for fold in range(FOLDS):
            inside = self._folds == fold
            if inside.any():
                weights = self._weights(kept, ~inside, cold_weight)
                logits = self._features[inside][:, :, self._columns(kept)] @ weights
                logits_E_C[inside] = np.where(self._real[inside], logits, -np.inf)
        return logits_E_C

    def _weights(self, kept: Sequence[int], rows: np.ndarray, cold_weight: float) -> np.ndarray:
        """(G,) fitted to some users, with b at most 0.

        That an item is hardly known is nothing to recommend it by. Held-out items may say otherwise: where all items
        were met by somebody, one that nobody met in training is somebody's held-out item.
        """
        weights_E = self._user_weights(rows, cold_weight)
        columns = self._columns(kept)
        features, real = self._features[rows][:, :, columns], self._real[rows]
        weights = fit_logit(features, real, weights_E, self._precision[np.ix_(columns, columns)], self._prior[columns])
        if weights[-1] <= 0:
            return weights
        others = columns[:-1]
        precision = self._precision[np.ix_(others, others)]
        return np.append(fit_logit(features[..., :-1], real, weights_E, precision, self._prior[others]), 0.0)

    def _user_weights(self, rows: np.ndarray, cold_weight: float) -> np.ndarray:
        """(E,) how much each of some rows counts: users alike, but for those with cold positives."""
        users, places = np.unique(self._scored.users[rows], return_inverse=True)
        weights_E = np.where(self._scored.cold[rows], cold_weight, 1.0) / np.bincount(places)[places]
        return np.asarray(weights_E * len(users) / weights_E.sum())

    def _columns(self, kept: Sequence[int]) -> list[int]:
        """The features of some signals: w for each, v for each, b."""
        size = len(self._signals)
        return [*kept, *(size + number for number in kept), 2 * size]

    def _measured(self, ranker: Ranker) -> SignalWeight:
        """A signal with the mean and spread of its scores."""
        scores = standardised(self._scored.scores[ranker.id], ranker.needs_llm, 0.0, 1.0)[self._real]
        return SignalWeight(
            id=ranker.id,
            title=ranker.title,
            centred=ranker.needs_llm,
            mean=float(scores.mean()),
            scale=float(scores.std()) or 1.0,
            weight=0.0,
            scarcity_weight=0.0,
        )

    def _take(self, prior: Prior, trust: float, doubt: float) -> None:
        """Pull the weights of the signals that `prior` has to what it says, in this fit's units, others to nothing."""
        by_id = {signal.id: (place, signal) for place, signal in enumerate(prior.blend.signals)}
        known = [number for number, signal in enumerate(self._signals) if signal.id in by_id]
        found = [by_id[self._signals[number].id] for number in known]
        scales = [self._signals[number].scale / signal.scale for number, (_, signal) in zip(known, found, strict=True)]
        units = np.asarray([*scales, *scales, 1.0])
        weights = [signal.weight for _, signal in found], [signal.scarcity_weight for _, signal in found]
        columns = self._columns(known)
        others = np.setdiff1d(np.arange(len(self._prior)), columns)
        self._precision[others, others] = doubt
        self._prior[columns] = units * np.asarray([*weights[0], *weights[1], prior.blend.scarcity_bias])
        places, size = [place for place, _ in found], len(prior.blend.signals)
        theirs = [*places, *(size + place for place in places), 2 * size]
        precision = prior.precision[np.ix_(theirs, theirs)] / np.outer(units, units)
        self._precision[np.ix_(columns, columns)] += trust * precision


def lift_over(logits_E_C: np.ndarray, others_E_C: np.ndarray, users: np.ndarray) -> Lift:
    """What one ranker has that another has not, user by user; a user's draws are averaged first."""
    gains = log_likelihoods(logits_E_C) - log_likelihoods(others_E_C)
    ndcg = ndcg_at(positive_ranks(logits_E_C), 10) - ndcg_at(positive_ranks(others_E_C), 10)
    _, places = np.unique(users, return_inverse=True)
    counts = np.bincount(places)
    found = {}
    for name, values in (("ndcg", ndcg), ("log_likelihood", gains)):
        means = np.round(np.bincount(places, values) / counts, 6)
        estimate = paired_difference(means, np.zeros(len(means)))
        found[name] = (estimate.mean, estimate.low, estimate.high)
    return Lift(**found)
