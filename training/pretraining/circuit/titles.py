"""Layer 1: slots fetch the first two tokens of their title, other tokens the first of theirs."""

from __future__ import annotations

from models.config import Config
from training.pretraining.circuit.head import Head
from training.pretraining.circuit.residual import NOMINAL_TITLE, Residual


class TitleGains(Config):
    """Strengths of the heads that read titles.

    Those of ten and more outweigh `recency`, a preference for near positions. They may be so large because in layer 1
    little else than the tokens themselves is in the residual stream; deeper in, training puts a little in every
    direction, and a large factor on it would turn the head off.

    Attributes:
        recency: how much nearer positions count: of all first tokens, the last before the slot is its title's.
        flag: how much slots look for tokens that are first, or second, of a title.
        first_write: length at which slots keep the code of the first token.
        first_sink: how much all positions look at the start of the text,
        first_slots: and how much less slots do, so that these alone fetch something.
        second_write: length at which the second token, or another token's first one, is kept.
        other_first: how much all positions look for first tokens of titles,
        slots_first: how much less slots do, which look for second ones,
        quotes_start: and how much quotation marks look at the start of the text instead: they keep the user's
            coordinates where others keep the code.
    """

    recency: float = 3.7
    flag: float = 0.46
    first_write: float = 2.3
    first_sink: float = 50.0
    first_slots: float = 4.0
    second_write: float = 2.2
    other_first: float = 25.0
    slots_first: float = 2.0
    quotes_start: float = 20.0


def first_token_heads(residual: Residual, gains: TitleGains) -> list[Head]:
    """Slots fetch the first token of their title, a part of its identity a head."""
    heads = []
    for part in residual.identity_parts:
        head = residual.head()
        residual.positions.look_back(head, 1, gains.recency, residual.positions.slow_half)
        head.match(gains.flag * residual.slots, residual.first_of_title[None])
        head.prefer(residual.start, gains.first_sink)
        head.match(-gains.first_slots * residual.slots, residual.start[None])
        head.copy(part, part, gains.first_write / NOMINAL_TITLE)
        heads.append(head)
    return heads


def second_token_head(residual: Residual, gains: TitleGains) -> Head:
    """Slots fetch the second token of their title, quotation marks nothing, all others the first of theirs."""
    head = residual.head()
    residual.positions.look_back(head, 1, gains.recency, residual.positions.slow_half)
    head.match(gains.flag * residual.slots, residual.second_of_title[None])
    head.prefer(residual.first_of_title, gains.other_first)
    head.match(-gains.slots_first * residual.slots, residual.first_of_title[None])
    head.match(gains.quotes_start * residual.quotes, residual.start[None])
    head.copy(residual.short_code, residual.user, gains.second_write / NOMINAL_TITLE)
    return head
