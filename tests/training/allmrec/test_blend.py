"""The default ranker's fit: what it finds, what it leaves out, and what it must not use."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from models.bundle.blend import Blend, scarcity
from models.rankers.base import Audience, Ranker, mask_padding
from models.rankers.blend import BlendRanker, by_id
from models.rankers.of_model import signals_of
from tests.tiny import tiny_contents, tiny_split
from training.allmrec.blend.choice import _prior, _with_llm, fit_blends, simplest
from training.allmrec.blend.config import BlendConfig
from training.allmrec.blend.fit import BlendFit
from training.allmrec.blend.scored import Scored, score_signals
from training.allmrec.logit import fit_logit, log_likelihoods
from training.evaluation.metrics import hit_at, positive_ranks


class Named(Ranker):
    def __init__(self, name: str, needs_llm: bool = False) -> None:
        self.id = self.title = name
        self.needs_llm = needs_llm

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:  # noqa: ARG002
        return mask_padding(np.zeros(candidates_E_C.shape), candidates_E_C)


class Knowing(Named):
    """Knows something of the positive, which comes first; all of them know the same."""

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:  # noqa: ARG002
        scores = np.random.default_rng(0).standard_normal(candidates_E_C.shape)
        scores[:, 0] += 1.5
        return mask_padding(scores, candidates_E_C)


def drawn(weights: dict[str, float], users: int = 1500, cold_weights: dict[str, float] | None = None) -> Scored:
    """Positives drawn from the softmax of weighted standard normal signals; other weights for unseen items."""
    rng = np.random.default_rng(0)
    scores = {name: rng.standard_normal((users, 20)) for name in weights}
    interactions = np.where(rng.random((users, 20)) < 0.5, 0, 50)
    for_unseen = cold_weights or weights
    logits = sum(
        np.where(interactions == 0, for_unseen[name], weight) * scores[name] for name, weight in weights.items()
    )
    chosen = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    rows = np.arange(users)
    for table in (*scores.values(), interactions):
        table[rows, chosen], table[:, 0] = table[:, 0].copy(), table[rows, chosen].copy()
    return Scored(
        rankers=[Named(name) for name in weights],
        scores=scores,
        interactions=interactions,
        users=rows,
        cold=interactions[:, 0] == 0,
        cold_below=2.0,
    )


def test_the_logit_finds_the_weights_that_drew_the_positives() -> None:
    """2 and -1, with standard errors of about .05."""
    scored = drawn({"a": 2.0, "b": -1.0})
    features = np.stack(list(scored.scores.values()), axis=2)
    found = fit_logit(features, scored.real, np.ones(len(features)), penalty=0.0)
    assert found == pytest.approx([2.0, -1.0], abs=0.2)


def test_the_logit_is_pulled_to_its_prior() -> None:
    """With a penalty beyond all evidence it stays there."""
    scored = drawn({"a": 2.0, "b": -1.0}, users=50)
    features = np.stack(list(scored.scores.values()), axis=2)
    found = fit_logit(features, scored.real, np.ones(50), penalty=1e8, prior_F=np.array([0.5, 0.5]))
    assert found == pytest.approx([0.5, 0.5], abs=1e-3)


def test_likelihoods_are_those_of_softmax() -> None:
    """log(e^2 / (e^2 + e^1)), padding left out."""
    found = log_likelihoods(np.array([[2.0, 1.0, -np.inf]]))
    assert found[0] == pytest.approx(-np.log1p(np.exp(-1.0)))


def test_a_signal_without_lift_is_left_out() -> None:
    """What drew nothing gets no weight and is named with what it is worth; what drew is kept, with a certain lift."""
    blend = BlendFit(drawn({"true": 1.5, "noise": 0.0}), BlendConfig()).fit()
    assert [signal.id for signal in blend.signals] == ["true"]
    assert set(blend.left_out) == {"noise"}
    assert blend.signals[0].lift.is_certain
    assert blend.signals[0].lift.ndcg[1] > 0
    low, high = blend.left_out["noise"].log_likelihood[1:]
    assert low <= 0.002
    assert high < 0.01


def test_of_ways_to_ask_an_llm_one_at_least_is_kept() -> None:
    """Whatever has no certain lift is left out, but for the last way, even where that has none either."""
    blend = BlendFit(drawn({"true": 1.5, "one": 0.0, "other": 0.0}), BlendConfig()).fit(one_of=["one", "other"])
    kept = {signal.id for signal in blend.signals}
    assert len(kept & {"one", "other"}) == 1
    assert kept | set(blend.left_out) == {"true", "one", "other"}
    both = BlendFit(drawn({"true": 1.5, "one": 1.0, "other": 0.0}), BlendConfig()).fit(one_of=["one", "other"])
    assert {signal.id for signal in both.signals} == {"true", "one"}


def test_signals_that_need_each_other_are_judged_together() -> None:
    """Their lift is that of both, and neither is left out alone: here only their difference was drawn from."""
    scored = drawn({"true": 1.5, "difference": 0.5})
    common = np.random.default_rng(1).normal(scale=5.0, size=scored.scores["true"].shape)
    scores = {"true": scored.scores["true"], "whole": scored.scores["difference"] + common, "constant": common}
    pair = replace(scored, scores=scores, rankers=[Named(name) for name in scores])
    blend = BlendFit(pair, BlendConfig()).fit(together=[("whole", "constant")])
    weights = {signal.id: signal.weight / signal.scale for signal in blend.signals}
    lifts = {signal.id: signal.lift for signal in blend.signals}
    assert weights["whole"] == pytest.approx(-weights["constant"], abs=0.1)
    assert weights["whole"] > 0.3
    assert lifts["whole"] == lifts["constant"]
    noise = replace(scored, scores={**scored.scores, "a": common, "b": -2 * common})
    noise = replace(noise, rankers=[Named(name) for name in noise.scores])
    left_out = BlendFit(noise, BlendConfig()).fit(together=[("a", "b")]).left_out
    assert left_out["a"] == left_out["b"]


def test_little_known_items_have_weights_of_their_own() -> None:
    """CF that means nothing for unseen items counts little there, and much elsewhere."""
    scored = drawn({"cf": 2.0, "text": 0.5}, users=3000, cold_weights={"cf": 0.0, "text": 2.0})
    blend = BlendFit(scored, BlendConfig()).fit()
    weights = {signal.id: (signal.weight, signal.scarcity_weight) for signal in blend.signals}
    known, unseen = 1 / (1 + 50 / 3), 1.0
    assert weights["cf"][0] + weights["cf"][1] * known > 1.5
    assert weights["cf"][0] + weights["cf"][1] * unseen == pytest.approx(0.0, abs=0.3)
    assert weights["text"][0] + weights["text"][1] * unseen > 1.5


def part(scored: Scored, users: slice) -> Scored:
    """Some of the users."""
    taken = {name: getattr(scored, name)[users] for name in ("interactions", "users", "cold")}
    return replace(scored, scores={name: values[users] for name, values in scored.scores.items()}, **taken)


def test_what_many_users_said_is_known_to_a_fit_on_few() -> None:
    """Their curvature around the weights stands for them: both together say what one fit on all says."""
    scored = drawn({"cf": 2.0, "text": 0.5, "llm": 1.0}, users=3000, cold_weights={"cf": 0.5, "text": 1.5, "llm": 1.0})
    config = BlendConfig(penalty=0.01)
    whole = BlendFit(scored, config).fit(always=["cf", "text", "llm"], cold_weight=1.5)
    first = BlendFit(part(scored, slice(0, 2900)), config)
    prior = first.prior(first.fit(always=["cf", "text", "llm"], cold_weight=1.5))
    few = part(scored, slice(2900, 3000))
    told = BlendFit(few, config, prior).fit(always=["cf", "text", "llm"], cold_weight=1.5)
    alone = BlendFit(few, config).fit(always=["cf", "text", "llm"], cold_weight=1.5)

    def per_unit(blend: Blend) -> np.ndarray:
        weights = [(signal.weight / signal.scale, signal.scarcity_weight / signal.scale) for signal in blend.signals]
        return np.asarray([*np.ravel(weights), blend.scarcity_bias])

    near, far = (np.abs(per_unit(blend) - per_unit(whole)).max() for blend in (told, alone))
    assert near < 0.02
    assert far > 5 * near
    trusting, untold = (BlendFit(few, config, prior, trust) for trust in (1.0, 0.0))
    assert untold.log_likelihoods().mean() < trusting.log_likelihoods().mean()
    assert simplest([trusting, untold]) is trusting


def test_what_others_said_does_not_count_where_it_is_wrong() -> None:
    """Users of whom the opposite is true: their own likelihood is far better than what the others would have."""
    scored = drawn({"cf": 2.0, "text": 0.5}, users=1500)
    prior = BlendFit(scored, BlendConfig()).prior(BlendFit(scored, BlendConfig()).fit())
    other = drawn({"cf": -1.0, "text": 2.0}, users=400)
    trusting, untold = (BlendFit(other, BlendConfig(), prior, trust) for trust in (1.0, 0.0))
    assert simplest([trusting, untold]) is untold


@pytest.mark.parametrize(("worth", "least", "most"), [(0.0, 0.0, 0.05), (1.5, 1.2, 1.8)])
def test_an_llm_is_heard_as_far_as_it_is_worth_it(worth: float, least: float, most: float) -> None:
    """One that says nothing is kept, as the one way there is, with next to no weight; one that knows keeps its own."""
    scored = drawn({"cf": 2.0, "llm": worth, "noise": 0.0}, users=2500)
    first = BlendFit(part(scored, slice(300, None)).only({"cf"}), BlendConfig())
    prior = first.prior(first.fit())
    blend, _, _ = _with_llm(part(scored, slice(0, 300)), BlendConfig(), prior, prior.blend, ["llm"])
    known = scarcity(scored.interactions, scored.cold_below).mean()
    weights = {signal.id: abs(signal.weight + known * signal.scarcity_weight) for signal in blend.signals}
    assert least <= weights["llm"] <= most
    assert weights["cf"] == pytest.approx(2.0, abs=0.25)
    assert set(weights) | set(blend.left_out) == {"cf", "llm", "noise"}


def test_beside_an_llm_that_says_nothing_the_blend_is_the_same() -> None:
    """All weights but the LLM's are those of all users, so that no item ranks otherwise for its sake."""
    scored = drawn({"cf": 2.0, "text": 0.3, "llm": 0.0}, users=2500)
    alone = BlendFit(scored.only({"cf", "text"}), BlendConfig())
    blend = alone.fit()
    others = part(scored, slice(300, None)).only({"cf", "text"})
    asked = part(scored, slice(0, 300))
    found, _, _ = _with_llm(asked, BlendConfig(), _prior(others, blend, BlendConfig()), blend, ["llm"])
    kept = {signal.id: signal for signal in found.signals}
    assert [kept[signal.id] for signal in blend.signals] == list(blend.signals)
    assert found.scarcity_bias == blend.scarcity_bias
    assert abs(kept["llm"].weight) < 0.05


def test_nobody_counts_twice() -> None:
    """The prior is of those who are not asked. Out of fold, an LLM that says nothing then has no likelihood too much.

    Of 300 users, all of whom were in the prior before, weights that they had been fitted to were given to them again.
    """
    scored = drawn({"llm": 0.0, **{f"s{number}": 0.25 for number in range(8)}}, users=2000)
    signals, config = {f"s{number}" for number in range(8)}, BlendConfig()
    asked = part(scored, slice(0, 300))
    blend = BlendFit(asked.only(signals), config).fit(always=sorted(signals), cold_weight=1.0)
    prior = _prior(asked.without(asked.users).only(signals), blend, config)
    assert not prior.precision.any()
    assert {signal.weight for signal in prior.blend.signals} == {0.0}
    _, held, free = _with_llm(asked, config, prior, blend, ["llm"])
    alone = BlendFit(asked.only(signals), config).log_likelihoods()
    for fit in (held, free):
        assert float((fit.log_likelihoods() - alone).mean()) < 0.01  # .03 where they counted twice
    others = scored.without(asked.users)
    assert set(others.users) == set(range(300, 2000))
    told = _prior(others.only(signals), blend, config)
    again = BlendFit(others.only(signals), config)
    same = again.prior(again.fit(always=[signal.id for signal in blend.signals], cold_weight=1.0))
    np.testing.assert_allclose(told.precision, same.precision)


def test_the_blend_with_the_llm_trades_cold_items_as_the_one_without() -> None:
    """By the weight that was chosen on all users, not on the few who are asked about."""
    split = tiny_split(users=120, items=40)
    few = BlendConfig(llm_users=25, cold_cost=1.0, users=120)
    blends = asyncio.run(fit_blends(split, [Knowing("cf")], [Named("llm", needs_llm=True)], few))
    assert blends.blend.validation["cold_weight"] == 3.0
    assert blends.llm.validation["cold_weight"] == 3.0


def test_the_blend_stays_at_chance_on_pseudo_positives() -> None:
    """Positives drawn as negatives are: nothing that the blend is made of can tell them, or it could tell the sampling.

    Of 20 candidates one in twenty is a hit by chance; 600 users make 30 hits with a spread of 5.3.
    """
    split = tiny_split(users=600, items=60)
    rng = np.random.default_rng(5)
    fresh = [int(rng.choice(np.setdiff1d(np.arange(1, 61), split.full_history(user)))) for user in range(600)]
    split.validation[:] = fresh
    split.test[:] = fresh
    model = tiny_contents(split)
    signals = signals_of(model)
    config = BlendConfig(users=600, draws=1)
    scored = asyncio.run(score_signals(split, signals, config.users, 1, seed=0))
    fit = BlendFit(scored, config)
    logits = fit.out_of_fold(range(len(signals)))
    hits = hit_at(positive_ranks(logits), 1).sum()
    assert len(logits) == 600
    assert abs(hits - 30) < 4 * np.sqrt(600 * 0.05 * 0.95)


def test_the_fit_ranks_as_the_ranker_does() -> None:
    """What was fitted on scores is what the ranker computes from the same signals."""
    split = tiny_split(users=200)
    model = tiny_contents(split)
    signals = signals_of(model)
    scored = asyncio.run(score_signals(split, signals, 200, 1, seed=0))
    blend = BlendFit(scored, BlendConfig()).fit(always=[signal.id for signal in signals])
    assert len(blend.signals) == len(signals)
    ranker = BlendRanker("blend", "Blend", blend, by_id(signals), split.catalogue.interactions)
    expected = blend.logits(scored.scores, scored.interactions)
    histories = [split.train[user] for user in scored.users]
    # The candidates are drawn anew from the same seed.
    again = asyncio.run(score_signals(split, [ranker], 200, 1, seed=0))
    assert len(histories) == len(expected)
    np.testing.assert_allclose(again.scores["blend"][scored.real], expected[scored.real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("users", [0, 1, 19])
def test_with_hardly_anybody_to_fit_on_the_backbone_ranks(users: int) -> None:
    """Its own logits, the LLM's beside them, and nothing is claimed of what the LLM adds."""
    split = tiny_split(users=40)
    split.validation[users:] = 0
    signals = signals_of(tiny_contents(split))
    blends = asyncio.run(fit_blends(split, signals, [Named("allmrec", needs_llm=True)], BlendConfig()))
    assert [(s.id, s.weight, s.mean, s.scale) for s in blends.blend.signals] == [("cf", 1.0, 0.0, 1.0)]
    assert [signal.id for signal in blends.llm.signals] == ["cf", "allmrec"]
    assert blends.llm_lift is None
    assert "not known" in blends.llm_in_words


def test_with_nobody_to_fit_on_a_titles_likelihood_counts_little_and_less_its_prior() -> None:
    """It is a sum over a dozen tokens, and larger for short titles: as it is it would drown the backbone."""
    split = tiny_split(users=40)
    split.validation[5:] = 0
    llm = [Named("title_likelihood", needs_llm=True), Named("title_prior")]
    blends = asyncio.run(fit_blends(split, signals_of(tiny_contents(split)), llm, BlendConfig()))
    assert [(signal.id, signal.weight) for signal in blends.llm.signals] == [
        ("cf", 1.0),
        ("title_likelihood", 0.1),
        ("title_prior", -0.1),
    ]


def test_twenty_users_are_enough_for_a_fit() -> None:
    split = tiny_split(users=40)
    repeats = [item in history for item, history in zip(split.validation, split.train, strict=True)]
    assert not any(repeats)
    split.validation[20:] = 0
    signals = signals_of(tiny_contents(split))
    blends = asyncio.run(fit_blends(split, signals, [Named("allmrec", needs_llm=True)], BlendConfig()))
    assert blends.llm_lift is not None
    assert blends.llm_lift_over_cf is not None


def test_what_the_llm_adds_is_said_beside_cf_and_beside_everything() -> None:
    """What another signal knows as well is a lift over CF, and none over the blend."""
    split = tiny_split(users=300, items=60)
    known = Knowing("similarity_mean")
    config = BlendConfig(draws=1)
    blends = asyncio.run(fit_blends(split, [Named("cf"), known], [Knowing("allmrec", needs_llm=True)], config))
    assert blends.llm_lift is not None
    assert blends.llm_lift_over_cf is not None
    assert blends.llm_lift_over_cf.ndcg[1] > 0.1
    assert blends.llm_lift.ndcg[0] < 0.05
    assert "the other signals know what it knows" in blends.llm_in_words


def test_nothing_is_recommended_for_being_unseen() -> None:
    """Though half of the held-out items are unseen, and a twentieth of the candidates: as good as what was met once."""
    scored = drawn({"a": 1.0})
    interactions = np.random.default_rng(0).choice([0, 1, 5, 50], scored.interactions.shape, p=[0.05, 0.35, 0.4, 0.2])
    interactions[::2, 0] = 0
    blend = BlendFit(replace(scored, interactions=interactions, cold=interactions[:, 0] <= 1), BlendConfig()).fit()
    logits = blend.logits({"a": np.tile(np.linspace(-2, 2, 5)[:, None], (1, 2))}, np.tile([0, 1], (5, 1)))
    assert np.array_equal(logits[:, 0], logits[:, 1])


def test_nothing_is_recommended_for_being_unknown() -> None:
    """Where each unseen candidate is the held-out one, as in a catalogue of items that all were met by somebody."""
    scored = drawn({"a": 1.0})
    interactions = np.full(scored.interactions.shape, 50)
    interactions[::3, 0] = 0
    blend = BlendFit(replace(scored, interactions=interactions, cold=interactions[:, 0] == 0), BlendConfig()).fit()
    assert blend.scarcity_bias == 0.0
    flat = blend.logits({"a": np.full((1, 2), blend.signals[0].mean)}, np.array([[0, 50]]))
    assert flat[0].tolist() == [0.0, 0.0]
    opposite = np.where(interactions == 0, 50, np.where(np.arange(20) % 3 == 1, 0, interactions))
    against = BlendFit(replace(scored, interactions=opposite, cold=opposite[:, 0] == 0), BlendConfig()).fit()
    assert against.scarcity_bias < -1
