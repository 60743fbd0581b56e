"""What a blend of signals weighs: conditional logits whose weights depend on how well an item is known.

`logit = sum over signals of (w + v * scarcity) * (score - mean) / scale + b * scarcity`, with
`scarcity = 1 / (1 + interactions / (1 + cold_below))`. So what is known of an item by its users and what by its text
count differently for items with many and with few interactions.

Axes: E users, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from models.bundle.retrieval import Retrieval
from models.config import Config


class Lift(Config):
    """What a signal is worth, on validation users: what the blend loses without it.

    Attributes:
        ndcg: NDCG@10, and the ends of its 95 % interval.
        log_likelihood: of the held-out item in nats, and the ends of its 95 % interval.
    """

    ndcg: tuple[float, float, float]
    log_likelihood: tuple[float, float, float]

    @property
    def is_certain(self) -> bool:
        """Whether the whole interval of the likelihood is above zero."""
        return self.log_likelihood[1] > 0


class SignalWeight(Config):
    """One signal of a blend.

    Attributes:
        id: of the ranker whose scores it is.
        title: for people.
        centred: its scores only mean something beside those of the other candidates, so their mean is taken away.
        mean: of its scores, which is taken away.
        scale: by which its scores are divided.
        weight: w.
        scarcity_weight: v.
        lift: what it is worth.
    """

    id: str
    title: str
    centred: bool
    mean: float
    scale: float
    weight: float
    scarcity_weight: float
    lift: Lift | None = None


class Blend(Config):
    """Fitted weights; travels in the bundle's manifest.

    Attributes:
        signals: those that count.
        left_out: titles and lifts of signals without certain lift, which are not computed, by id.
        cold_below: the interactions from which on an item counts as rather known than not.
        scarcity_bias: b, at most 0.
        validation: metrics on validation users, out of fold.
    """

    signals: tuple[SignalWeight, ...]
    left_out: dict[str, Lift] = Field(default_factory=dict)
    cold_below: float
    scarcity_bias: float = Field(0.0, le=0)
    validation: dict[str, float] = Field(default_factory=dict)

    def logits(self, scores: Mapping[str, np.ndarray], interactions_E_C: np.ndarray) -> np.ndarray:
        """(E, C) logits; only finite where all scores are.

        Args:
            scores: by signal id (E, C), -inf at padding.
            interactions_E_C: of the candidates in training.
        """
        scarcity_E_C = scarcity(interactions_E_C, self.cold_below)
        logits_E_C = self.scarcity_bias * scarcity_E_C
        for signal in self.signals:
            values_E_C = standardised(scores[signal.id], signal.centred, signal.mean, signal.scale)
            logits_E_C = logits_E_C + (signal.weight + signal.scarcity_weight * scarcity_E_C) * values_E_C
        return logits_E_C


def scarcity(interactions: np.ndarray, cold_below: float) -> np.ndarray:
    """1 for an item that was met once or never, less the more it was.

    Nothing may recommend an item for being unseen. Where all items of a catalogue were met by somebody, one that
    nobody met in training is somebody's held-out item, and a fit that could tell it would.
    """
    return 1.0 / (1.0 + (np.maximum(interactions, 1) - 1) / (1.0 + cold_below))


def standardised(scores_E_C: np.ndarray, centred: bool, mean: float, scale: float) -> np.ndarray:
    """(E, C) scores about 0 with a spread of about 1; padding stays 0."""
    real = np.isfinite(scores_E_C)
    values_E_C = np.where(real, scores_E_C, 0.0)
    if centred:
        counts_E_1 = np.maximum(real.sum(axis=1, keepdims=True), 1)
        values_E_C = values_E_C - values_E_C.sum(axis=1, keepdims=True) / counts_E_1
    return np.where(real, (values_E_C - mean) / scale, 0.0)


class GenreBlends(Config):
    """How genres are weighed, whose signals are in `models.recommending.genres`; how little known one is has no weight.

    Attributes:
        blend: without the LLM; also what serves when the LLM falls back.
        llm: with the LLM's probabilities.
        validation: by name a figure on validation users, out of fold.
    """

    blend: Blend
    llm: Blend
    validation: dict[str, float] = Field(default_factory=dict)


class Blends(Config):
    """The two blends that a bundle is served with, each fitted for itself.

    Attributes:
        blend: without the LLM; also what serves when the LLM falls back, and what lies outside the LLM's window.
        llm: with the LLM's scores.
        llm_lift: what the LLM's scores are worth beside all others; None if too few users could be held out to say.
        llm_lift_free: the same by weights that nothing holds near zero: what there may be to gain, and to lose.
        llm_lift_over_cf: what they are worth beside the first signal alone; None if that was not measured. An LLM that
            is worth something here and nothing there knows what the other signals know too.
        retrieval: where the items come from that are ranked.
        genres: of favourite genres; None where none were fitted, with too few users.
    """

    blend: Blend
    llm: Blend
    llm_lift: Lift | None
    llm_lift_free: Lift | None = None
    llm_lift_over_cf: Lift | None = None
    retrieval: Retrieval = Retrieval()
    genres: GenreBlends | None = None

    @property
    def llm_in_words(self) -> str:
        """One line for people: what the LLM is worth here, and what saves its cost if that is nothing."""
        if self.llm_lift is None:
            return "what the LLM adds is not known: too few users had an item to hold out"
        mean, low, high = self.llm_lift.ndcg
        line = f"the LLM adds {mean:+.4f} ({low:+.4f} to {high:+.4f}) of NDCG@10 to the blend without it"
        likelier, least, most = self.llm_lift.log_likelihood
        line += f", and {likelier:+.4f} nats ({least:+.4f} to {most:+.4f})"
        if self.llm_lift.is_certain:
            return line
        line += ": by these no certain lift, ALLMREC_RANKER=blend serves without it and saves its cost"
        over_cf = self.llm_lift_over_cf
        if over_cf is None or not over_cf.is_certain:
            return line
        return f"{line}. It adds {over_cf.ndcg[0]:+.4f} to CF alone: the other signals know what it knows"
