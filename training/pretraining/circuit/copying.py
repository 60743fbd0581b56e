"""Layer 5: induction heads, which copy what followed a token before."""

from __future__ import annotations

from models.config import Config
from training.pretraining.circuit.beginnings import PLACE_FREQUENCIES
from training.pretraining.circuit.head import Head
from training.pretraining.circuit.residual import NOMINAL_CANDIDATE, NOMINAL_EMBEDDING, Residual

_PLACE_DISTANCE = 2
"""A slot stands two after the last token of its title: the closing quote is between them."""
_REPEAT_MATCH, _REPEAT_SINK = 0.8, 0.55
"""A match of 0.8^2 against 0.55 * 12.7 = 7 nats for the start of the text, for tokens that stand there once."""


class RepeatGains(Config):
    """Strength of the head that repeats.

    Attributes:
        write: length at which a token's code is taken up.
    """

    write: float = 0.3


class FollowGains(Config):
    """Strengths of the head that reads on where titles were located.

    Attributes:
        match: how much it counts that the same token came before.
        near: how much it counts to stand near the places located.
        quote: how much quotation marks look at the start of the text instead. Deep in the stack, a large factor on a
            direction that ought to be empty is fatal: at 10, the little that training put there turned the head off.
        sink: how much all others do.
        write: length at which a token's code is taken up.
    """

    match: float = 0.65
    near: float = 0.7
    quote: float = 1.2
    sink: float = 0.1
    write: float = 1.2


def repeat_head(residual: Residual, gains: RepeatGains) -> Head:
    """Tokens find what followed them before."""
    head = residual.head()
    head.match(_REPEAT_MATCH * residual.previous_code, _REPEAT_MATCH * residual.items[1:])
    head.prefer(residual.start, _REPEAT_SINK)
    own = residual.own_code[: head.size]
    head.copy(own, own, gains.write / NOMINAL_EMBEDDING)
    return head


def follow_head(residual: Residual, gains: FollowGains) -> Head:
    """Tokens find what followed them before the places located, and more of it the nearer."""
    head = residual.head()
    rows = residual.positions.rows(PLACE_FREQUENCIES)
    located = residual.positions.turned(_PLACE_DISTANCE, rows, residual.history_similarity[: len(rows)])
    head.match(gains.near * located, gains.near * residual.elsewhere()[rows])
    # As much of the previous token's code as 14 dimensions of places and 2 of sinks leave: 80 of 88.
    size = head.size - len(rows) - 2
    head.match(gains.match * residual.previous_code[:size], gains.match * residual.items[1 : size + 1])
    head.match(gains.quote * residual.open_quote[None], residual.start[None])
    head.prefer(residual.start, gains.sink)
    own = residual.own_code[: head.size]
    head.copy(own, own, gains.write / NOMINAL_CANDIDATE)
    return head
