"""Layer 0: what stands before a token, and what the prompt says of its user."""

from __future__ import annotations

import torch

from models.config import Config
from training.pretraining.circuit.head import Head
from training.pretraining.circuit.residual import NOMINAL_EMBEDDING, NOMINAL_USER, Residual

_HARD = 1.1
"""One or two back exactly: between neighbours the score differs by 1.1^2 * .27^2 * sum of (1 - cos frequency) = .28,
times what layer norm makes of query and key: 49 nats at tokens, 12 at slots."""


class ContextGains(Config):
    """Strengths of layer 0.

    Attributes:
        predecessor: length at which the previous token's code, and that a token is the first or second of its title,
            are written; its embedding has length 1.
        user: length at which u and w, and the mean y, are written. Read at slots, where layer norm makes 3.2 of a unit,
            they come out 3.2 * 3.2 / 7 = 1.45 times as long as in the token.
        history: how much quotation marks attend to history slots, 15 nats; alike to all, so that a mean is copied.
        history_sink: how much they, and all others, attend to the start of the text, 8 nats.
    """

    predecessor: float = 1.7
    user: float = 3.2
    history: float = 0.8
    history_sink: float = 0.6


def context_heads(residual: Residual, gains: ContextGains) -> list[Head]:
    """The four heads of layer 0."""
    return [
        _previous(residual, gains),
        _user(residual, gains),
        _before_previous(residual, gains),
        _history_mean(residual, gains),
    ]


def _previous(residual: Residual, gains: ContextGains) -> Head:
    """Every token takes up the code of its predecessor, and whether that is an opening quote."""
    head = residual.head()
    residual.positions.look_back(head, 1, _HARD)
    read = torch.cat([residual.open_quote[None], residual.previous_code])
    written = torch.cat([residual.first_of_title[None], residual.items[1:]])
    head.copy(read, written, gains.predecessor / NOMINAL_EMBEDDING)
    return head


def _user(residual: Residual, gains: ContextGains) -> Head:
    """All but item slots, whose user dimensions are for other things, take up the user's coordinates."""
    head = residual.head()
    head.prefer(residual.user_type, 3.0)  # 3 * 6 * 3.2 = 57 nats: nothing else counts
    # 0.6^2 * (6 * 3.2) * 13.4 = 92 nats: for item slots the start of the text counts more still.
    head.match(0.6 * residual.slots, 0.6 * residual.start[None])
    coordinates = torch.cat([residual.user, residual.series_weight[None]])
    head.copy(coordinates, coordinates, gains.user / NOMINAL_USER)
    return head


def _before_previous(residual: Residual, gains: ContextGains) -> Head:
    """A token learns that an opening quote stands two before it."""
    head = residual.head()
    residual.positions.look_back(head, 2, _HARD)
    head.copy(residual.open_quote[None], residual.second_of_title[None], gains.predecessor / NOMINAL_EMBEDDING)
    return head


def _history_mean(residual: Residual, gains: ContextGains) -> Head:
    """Quotation marks attend to all history slots alike and so take up the mean of their y."""
    head = residual.head()
    head.match(gains.history / NOMINAL_EMBEDDING * residual.quotes, residual.history_type[None])
    head.prefer(residual.start, gains.history_sink)
    head.copy(residual.similarity, residual.history_similarity, gains.user / NOMINAL_USER)
    return head
