"""Layer 2: titles that begin alike, in history and candidates, and on the way to a branching node."""

from __future__ import annotations

import math

from models.config import Config
from training.pretraining.circuit.head import Head
from training.pretraining.circuit.residual import NOMINAL_CANDIDATE, NOMINAL_TITLE, Residual

PLACE_FREQUENCIES = range(4, 11)
"""Of the position code, those that tell titles apart but not the tokens of one (periods of 13 to 107 tokens; a title
has up to 16 and 4 around it); the others would favour late titles. They fill 14 dimensions of the 24 of y."""
_SERIES_SINK = 0.5
"""The start of the text, at 0.5 * 12.8 = 6.4 nats, for what matches nothing. Tokens match themselves, to no effect."""
_QUOTE_SINK = 1.1
"""Opening quotes are on no path: 1.1^2 * 8.0 * 12.8 = 124 nats for the start of the text, where nothing is copied."""


class SeriesGains(Config):
    """Strengths of the head that finds series.

    Attributes:
        match: how much each token in common counts: a candidate matches itself by about 32 nats, a title of the history
            with one token in common by half of it, with two by all of it,
        history: and by .02 * (6 * 2.8)^2 = 5.6 more, because it is of the history. So two tokens win, and one does not.
        write: length at which it is said that a title of the history begins alike.
    """

    match: float = 1.1
    history: float = 0.02
    write: float = 0.3


class PathGains(Config):
    """Strengths of the heads by which a path token takes up what followed it in titles, by their logits.

    Attributes:
        own: how much it counts that a slot's title begins with the token.
        logit: how much the logit noted counts.
        candidate: how much candidate slots are preferred.
        write: length at which second tokens are taken up or pushed away.
    """

    own: float = 0.56
    logit: float = 1.2
    candidate: float = 0.42
    write: float = 2.0


class LocateGains(Config):
    """Strengths of the head by which path tokens learn where titles stand that begin as theirs.

    Attributes:
        match: how much it counts that a slot's title begins alike.
        logit: how much the logit noted counts.
        candidate: how much candidate slots are preferred.
        write: length at which places are taken up.
    """

    match: float = 0.43
    logit: float = 2.3
    candidate: float = 0.7
    write: float = 0.38


def series_head(residual: Residual, gains: SeriesGains) -> Head:
    """Candidates weigh titles of the history that begin like theirs against themselves."""
    head = residual.head()
    # 48 dimensions for the first token and 41 for the second leave 7, of which what follows below needs two.
    half = head.size // 2
    first, second = residual.identity_parts[0][:half], residual.user[: half - 7].clone()
    # The end of a title lies along one dimension, other second tokens along all of them.
    second[0] *= math.sqrt(len(second) / len(residual.user))
    head.match(gains.match * first, gains.match * first)
    head.match(gains.match * second, gains.match * second)
    head.match(gains.history * residual.candidate_type[None], residual.history_type[None])
    head.prefer(residual.start, _SERIES_SINK)
    head.copy(residual.history_type[None], residual.in_series[None], gains.write / NOMINAL_TITLE)
    return head


def path_head(residual: Residual, gains: PathGains, sign: float) -> Head:
    """Tokens that began titles take up (1) or push away (-1) what followed, by the logits noted."""
    head = residual.head()
    first = residual.identity_parts[0]
    head.match(gains.own * first, gains.own * first)
    head.prefer(residual.noted_logit, sign * gains.logit)
    head.prefer(residual.candidate_type, gains.candidate)
    head.match(_QUOTE_SINK * residual.open_quote[None], _QUOTE_SINK * residual.start[None])
    head.copy(residual.user, residual.short_code, sign * gains.write / NOMINAL_CANDIDATE)
    return head


def locate_head(residual: Residual, gains: LocateGains) -> Head:
    """Tokens of a title take up where candidates stand that begin as it does, by the logits noted.

    A mean of places, weighed by logits, is nearest to the likeliest.
    """
    head = residual.head()
    code = residual.short_code[1:]
    head.match(gains.match * residual.user[1:], gains.match * code)
    head.prefer(residual.noted_logit, gains.logit)
    head.prefer(residual.candidate_type, gains.candidate)
    head.match(_QUOTE_SINK * residual.open_quote[None], _QUOTE_SINK * residual.start[None])
    rows = residual.positions.rows(PLACE_FREQUENCIES)
    # Unscaled by a nominal reading: it was so when it was tuned.
    head.copy(residual.elsewhere()[rows], residual.history_similarity[: len(rows)], gains.write)
    return head
