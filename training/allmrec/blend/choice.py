"""Both blends, with the LLM and without: who is fitted to whom, and how far the LLM is listened to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.bundle.blend import Blend, Blends, SignalWeight
from models.rankers.base import Ranker
from models.rankers.of_model import INJECTED, TITLE_PRIOR, TITLES
from training.allmrec.blend.config import BlendConfig
from training.allmrec.blend.fit import BlendFit, Prior
from training.allmrec.blend.scored import Scored, score_signals
from training.allmrec.logit import FEWEST_USERS
from training.data.splits import SequenceSplit

UNFITTED = {TITLES: 0.1, INJECTED: 0.1, TITLE_PRIOR: -0.1}
"""Weights of what is no choice among candidates, where nobody says what it is worth."""
CERTAIN = 2.0
"""Standard errors by which a blend with the LLM must be likelier than the one without: it is the best of many."""


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
    cf = signals[0]
    alone = asked if cf.id in kept else await score_signals(split, [cf], config.llm_users, 1, config.seed)
    scores = {cf.id: alone.scores[cf.id], **{name: asked.scores[name] for name in ids}}
    beside_cf = BlendFit(replace(asked, rankers=[cf, *llm], scores=scores), config)
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
