"""Fits the default ranker: what each signal is worth, on validation users, for well known and for little known items.

Signals are scored on the validation items of users who had not met theirs before: no negative is ever of the
history, so a repeat could be told by that. A signal whose lift is not certain is left out, then the weights are
fitted again. All that is reported is out of fold: no user's figure comes from weights that were fitted to that user.

Axes: E users, times draws of negatives, C candidates of which the first is the positive, F signals, G features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from models.bundle.blend import Blend, Blends, GenreBlends, Lift, SignalWeight, scarcity, standardised
from models.config import Config
from models.prompts.title_list import TitleListConfig
from models.rankers.base import Ranker
from models.rankers.of_model import INJECTED, TITLE_PRIOR, TITLES
from training.allmrec.genre_blend import GenreBlendConfig
from training.allmrec.logit import FEWEST_USERS, FOLDS, curvature, fit_logit, log_likelihoods
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import hit_at, ndcg_at, paired_difference, positive_ranks

UNFITTED = {TITLES: 0.1, INJECTED: 0.1, TITLE_PRIOR: -0.1}
"""Weights of what is no choice among candidates, where nobody says what it is worth."""
CERTAIN = 2.0
"""Standard errors by which a blend with the LLM must be likelier than the one without: it is the best of many."""


class BlendConfig(Config):
    """How the blend is fitted.

    Attributes:
        ways: how the LLM is asked, ids of `models.rankers.of_model.WAYS`. All are fitted; those without certain lift
            are left out, but never all.
        title_list: what the LLM is shown where it is asked how likely titles follow.
        users: at most this many validation users.
        draws: of negatives for each user, for signals without an LLM.
        llm_users: at most this many validation users are asked the LLM about.
        penalty: of squared weights, in nats.
        cold_weights: how much more users with a cold positive may count; the largest is taken that costs all users
            at most `cold_cost`.
        cold_cost: share of all users' NDCG@10 that may be given up for cold items.
        trust: what share of the users of the blend without the LLM may count in the weights of the one with it, beside
            those who are asked about; the largest is taken whose likelihood is the best, but for a standard error.
            Where nothing is certainly likelier than that blend, it is kept as it is, and the LLM has next to no weight.
        doubt: penalties of the LLM's weights, the largest first, by the same rule: what it says is to be worth being
            listened to.
        seed: of negatives and folds.
        genres: how genres are weighed.
    """

    ways: tuple[Literal["allmrec", "title_likelihood", "title_injected", "user_encoder"], ...] = Field(
        ("allmrec", "title_likelihood"), min_length=1
    )
    title_list: TitleListConfig = TitleListConfig()
    users: int = Field(3000, gt=0)
    draws: int = Field(2, gt=0)
    llm_users: int = Field(1000, gt=0)
    penalty: float = Field(3.0, ge=0)
    cold_weights: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 3.0)
    cold_cost: float = Field(0.005, ge=0)
    trust: tuple[float, ...] = Field((0.0, 0.1, 0.3, 1.0), min_length=1)
    doubt: tuple[float, ...] = Field((3.0, 30.0, 300.0, 3000.0), min_length=1)
    seed: int = 0
    genres: GenreBlendConfig = GenreBlendConfig()


@dataclass(frozen=True)
class Scored:
    """Signals' scores on validation candidates.

    Attributes:
        rankers: F signals.
        scores: by signal id (E, C), -inf at padding.
        interactions: (E, C) of the candidates in training.
        users: (E,) numbers of the users; one for every draw.
        cold: (E,) whether the positive is a cold item.
        cold_below: interactions from which on an item is not cold.
    """

    rankers: Sequence[Ranker]
    scores: Mapping[str, np.ndarray]
    interactions: np.ndarray
    users: np.ndarray
    cold: np.ndarray
    cold_below: float

    @property
    def real(self) -> np.ndarray:
        """(E, C) the candidates that are there."""
        return np.isfinite(next(iter(self.scores.values())))

    def without(self, users: np.ndarray) -> Scored:
        """The rows of all users but some, by their numbers."""
        rows = ~np.isin(self.users, users)
        return replace(
            self,
            scores={name: values[rows] for name, values in self.scores.items()},
            interactions=self.interactions[rows],
            users=self.users[rows],
            cold=self.cold[rows],
        )

    def only(self, ids: Collection[str]) -> Scored:
        """By some of the signals."""
        return replace(self, rankers=[ranker for ranker in self.rankers if ranker.id in ids])


async def score_signals(split: SequenceSplit, rankers: Sequence[Ranker], users: int, draws: int, seed: int) -> Scored:
    """Ask all `rankers` about the validation items of at most so many users, with so many draws of negatives each."""
    parts: list[tuple[HeldOut, dict[str, np.ndarray]]] = []
    for draw in range(draws):
        held_out = HeldOut.of(split, Holdout.VALIDATION, seed + 1000 + draw, users)
        held_out = held_out.take(held_out.groups["new"])
        items = held_out.candidates.items
        parts.append((held_out, {ranker.id: await ranker.score(held_out.users, items) for ranker in rankers}))
    interactions = [split.catalogue.interactions[held_out.candidates.items] for held_out, _ in parts]
    cold = split.cold_items
    return Scored(
        rankers=rankers,
        scores={ranker.id: np.concatenate([scores[ranker.id] for _, scores in parts]) for ranker in rankers},
        interactions=np.concatenate(interactions),
        users=np.concatenate([held_out.candidates.users for held_out, _ in parts]),
        cold=np.concatenate([held_out.groups["cold"] for held_out, _ in parts]),
        cold_below=float(split.catalogue.interactions[cold].max(initial=0)),
    )


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


async def fit_blends(
    split: SequenceSplit, signals: Sequence[Ranker], llm: Sequence[Ranker], config: BlendConfig
) -> Blends:
    """Both blends of the signals and the LLM's rankers, on validation users.

    Args:
        split: the data; its validation items are looked at, its test items never.
        signals: rankers without an LLM; the first ranks alone when there are too few users to fit on.
        llm: rankers that ask the LLM, one of which at least is in the blend `llm`, and constants that it once told.
        config: how.
    """
    scored = await score_signals(split, signals, config.users, config.draws, config.seed)
    if len(np.unique(scored.users)) < FEWEST_USERS:
        return unfitted(signals[0], llm, scored.cold_below)
    blend = BlendFit(scored, config).fit()
    kept = {signal.id for signal in blend.signals}
    both = [*(ranker for ranker in signals if ranker.id in kept), *llm]
    asked = await score_signals(split, both, config.llm_users, 1, config.seed)
    prior = _prior(scored.without(asked.users).only(kept), blend, config)
    with_llm, held, free = _with_llm(asked, config, prior, blend, [ranker.id for ranker in llm if ranker.needs_llm])
    ids = [ranker.id for ranker in llm]
    first = await score_signals(split, signals[:1], config.llm_users, 1, config.seed)
    scores = {**first.scores, **{name: asked.scores[name] for name in ids}}
    beside_cf = BlendFit(replace(asked, rankers=[*signals[:1], *llm], scores=scores), config)
    weighed = [signal.id for signal in with_llm.signals if signal.id in ids]
    return Blends(
        blend=blend,
        llm=with_llm,
        llm_lift=held.lift_of(weighed),
        llm_lift_free=free.lift_of(weighed),
        llm_lift_over_cf=beside_cf.lift_of(ids),
    )


def _prior(others: Scored, blend: Blend, config: BlendConfig) -> Prior:
    """What users say of the signals of `blend` whom the LLM is not asked about: nobody counts here and there.

    Args:
        others: these users, by those signals.
        blend: of all users; its weight of cold items is kept to.
        config: how.
    """
    if len(np.unique(others.users)) < FEWEST_USERS:
        nothing = {"weight": 0.0, "scarcity_weight": 0.0}
        signals = tuple(signal.model_copy(update=nothing) for signal in blend.signals)
        size = 2 * len(signals) + 1
        unknown = blend.model_copy(update={"signals": signals, "scarcity_bias": 0.0})
        return Prior(unknown, np.zeros((size, size)))
    fit = BlendFit(others, config)
    ids = [signal.id for signal in blend.signals]
    return fit.prior(fit.fit(always=ids, cold_weight=blend.validation["cold_weight"]))


def _with_llm(
    asked: Scored, config: BlendConfig, prior: Prior, blend: Blend, ways: Sequence[str]
) -> tuple[Blend, BlendFit, BlendFit]:
    """The blend with the LLM, the fit that its weights are of, and the same with weights that are hardly held.

    Which of the LLM's signals are kept is found by the latter: held near zero all are alike.

    Args:
        asked: the scores of the signals of `prior`, and of the LLM's.
        config: how.
        prior: what is known without the LLM, of users who are not asked.
        blend: without the LLM, of all users.
        ways: ids of the LLM's rankers, one of which is kept.
    """
    known, cold_weight = [signal.id for signal in prior.blend.signals], prior.blend.validation["cold_weight"]
    trusts, doubts = sorted(config.trust, reverse=True), sorted(config.doubt, reverse=True)
    free = simplest([BlendFit(asked, config, prior, trust) for trust in trusts], cold_weight)
    found = free.fit(always=known, one_of=ways, together=[(TITLES, TITLE_PRIOR)], cold_weight=cold_weight)
    kept = [signal.id for signal in found.signals]
    asked = asked.only(kept)
    free = simplest([BlendFit(asked, config, prior, trust) for trust in trusts], cold_weight)
    held = simplest([BlendFit(asked, config, prior, trust, doubt) for doubt in doubts for trust in trusts], cold_weight)
    alone = BlendFit(asked.only(known), config, prior, trusts[0])
    if simplest([alone, held], cold_weight, errors=CERTAIN) is held:
        chosen = held.fit(always=kept, cold_weight=cold_weight)
    else:
        held = BlendFit(asked, config, prior, trusts[0], doubts[0])
        chosen = _beside(blend, held.fit(always=kept, cold_weight=cold_weight))
    return chosen.model_copy(update={"left_out": found.left_out}), held, free


def _beside(blend: Blend, with_llm: Blend) -> Blend:
    """`blend` as it is, and what `with_llm` has beside it."""
    own = {signal.id: signal for signal in blend.signals}
    signals = tuple(own.get(signal.id, signal) for signal in with_llm.signals)
    return with_llm.model_copy(update={"signals": signals, "scarcity_bias": blend.scarcity_bias})


def simplest(fits: Sequence[BlendFit], cold_weight: float = 1.0, errors: float = 1.0) -> BlendFit:
    """The first that is as likely as the best, but for a standard error of the difference (Breiman et al. 1984).

    Args:
        fits: to the same users, those that need the fewest of them first.
        cold_weight: how much users with cold positives count: a prior in which they count for more is not to be judged
            as if they did not.
        errors: so many standard errors.
    """
    likely = [fit.log_likelihoods(cold_weight) for fit in fits]
    best = max(likely, key=lambda values: float(values.mean()))
    behind = [best - values for values in likely]
    near = [values.mean() <= errors * values.std() / len(values) ** 0.5 for values in behind]
    return fits[near.index(True)]


def unfitted(signal: Ranker, llm: Sequence[Ranker], cold_below: float) -> Blends:
    """What to serve with when there is nobody to fit on: one signal, and the LLM beside it.

    Logits are taken as they are; likelihoods of titles, which are sums over a dozen tokens, count a tenth, and less
    what a title is likely without any history.
    """

    def whole(ranker: Ranker) -> SignalWeight:
        return SignalWeight(
            id=ranker.id,
            title=ranker.title,
            centred=ranker.needs_llm,
            mean=0.0,
            scale=1.0,
            weight=UNFITTED.get(ranker.id, 1.0),
            scarcity_weight=0.0,
        )

    def blend(rankers: Sequence[Ranker]) -> Blend:
        return Blend(signals=tuple(map(whole, rankers)), cold_below=cold_below)

    way = llm[0]
    beside = [ranker for ranker in llm if way.id == TITLES and ranker.id == TITLE_PRIOR]
    return Blends(blend=blend([signal]), llm=blend([signal, way, *beside]), llm_lift=None)


def genre_figures(genres: GenreBlends) -> dict[str, float]:
    """For `metrics.json`: how often favourites are named, on validation users."""
    blended = {"blend": genres.blend.validation, "llm_blend": genres.llm.validation}
    named = {f"{name}.{key}": value for name, figures in blended.items() for key, value in figures.items()}
    return {**genres.validation, **named}


def worth(blends: Blends) -> dict[str, Any]:
    """For `metrics.json`: what each signal is worth, the LLM first, and the blends' validation metrics."""
    lifts = {signal.id: signal.lift.ndcg for signal in blends.blend.signals if signal.lift is not None}
    llm = {} if blends.llm_lift is None else {"llm": blends.llm_lift.ndcg}
    over_cf = blends.llm_lift_over_cf
    return {
        "lift_ndcg": {**llm, **lifts},
        "llm_over_cf": None if over_cf is None else over_cf.model_dump(mode="json"),
        "validation": blends.blend.validation,
        "recall@100": blends.retrieval.validation,
        "genres": {} if blends.genres is None else genre_figures(blends.genres),
    }
