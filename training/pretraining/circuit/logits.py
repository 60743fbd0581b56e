"""Heads that compare a user with candidates: slots note their logit, the end ranks them and corrects itself."""

from __future__ import annotations

import math

import torch

from models.config import Config
from training.pretraining.circuit.head import Head
from training.pretraining.circuit.residual import NOMINAL_CANDIDATE, NOMINAL_TITLE, Residual

_UNIT = 0.16
"""What a `match` of 1 multiplies inner products with. In layer 3 the end of the prompt holds u at 1.45 times its
token's length and layer norm makes 8.1 of it, 2.8 of z; both tokens have coordinates at .185. So the default .94 makes
.16 * .94 * (1.45 * .185 * 8.1) * (.185 * 2.8) = .17 of <u, z>: two thirds of the law's .25. Flatter than the law,
because a softmax as sharp as the answer leaves too little of the unlikely candidates."""
_NOTE_FREQUENCIES = (5, 8, 11)
"""Three frequencies (a title, several, many) are what the head has left: 64 + 24 + 1 for the law, 6 here, 1 for ends.
That is the `7 more` than an item's coordinates that `Architecture.head_size` asks for."""
_ENDS = 0.24**2
"""How much a slot attends to ends of titles: times 6 * 3.2 of its type and 6.9 of theirs, 7.6 nats."""


class NoteGains(Config):
    """Strengths of the head that notes logits, layer 1.

    Attributes:
        match: times `_UNIT`, how much a candidate's logit counts.
        sink: its square is how much a candidate attends to itself: against it the logit is weighed. The two sides are
            near balance, 14.0 nats against 12.7 at the end of its title, where the softmax is steepest.
        recency: how much nearer ends count: a slot stands right behind that of its title.
        write: length of a note.
    """

    match: float = 0.92
    sink: float = 0.18
    recency: float = 1.12
    write: float = 0.65


class RankingGains(Config):
    """Strengths of the heads that rank candidates, layer 3.

    Attributes:
        match: times `_UNIT`, how much logits count.
        popularity: how much p counts beside the matches. Its axis is shorter than a coordinate's (.05), hence no
            `_UNIT`: 1.15 * .94 * .05 * 2.8 = .15 of p. Noted logits have it too.
        series: how much w counts at candidates of a series.
        write: length at which first tokens are taken up or pushed away.
        gate: how much the end of the prompt, an opening quote, looks at candidates rather than other tokens. Small:
            were it strong, its own variation would drown the logits.
        sink: how much every position looks at the start of the text.
    """

    match: float = 0.94
    popularity: float = 1.15
    series: float = 0.16
    write: float = 4.5
    gate: float = 0.3
    sink: float = 1.0


class CorrectionGains(Config):
    """Strengths of a correction, layers 4 and 5.

    Attributes:
        match: times `_UNIT`, how much it counts what the end has of a candidate's code.
        write: length at which that code is taken back.
    """

    match: float = 0.92
    write: float = 0.65


def note_head(residual: Residual, gains: NoteGains, popularity: float) -> Head:
    """Slots weigh the end of their title, which knows the user, against themselves, by their logit."""
    head = residual.head()
    user, item = residual.matched
    scale = math.sqrt(_UNIT * gains.match)
    head.match(scale * item, scale * user)
    head.match(scale * residual.similarity, scale * residual.history_similarity)
    head.match(popularity * residual.popularity[None], gains.match * residual.close_quote[None])
    residual.positions.look_back(head, 1, gains.recency, _NOTE_FREQUENCIES)
    # The start of the text is on no side of the balance: it is pushed away as much as ends are sought.
    ends = _ENDS * (residual.close_quote - residual.start) + gains.sink**2 * residual.candidate_type
    head.match(residual.candidate_type[None], ends[None])
    head.copy(residual.close_quote[None], residual.noted_logit[None], gains.write / NOMINAL_TITLE)
    return head


def ranking_heads(residual: Residual, gains: RankingGains) -> list[Head]:
    """The end attends to candidates by logit and takes up their first tokens, by minus logit and pushes them away.

    With the second half the unlikely are ranked too: a softmax by logit alone hardly sees them.
    """
    heads = []
    for sign in (1.0, -1.0):
        for part in residual.identity_parts:
            head = _by_logit(residual, gains, sign)
            _at_the_end(residual, gains, head)
            head.copy(part, part, sign * gains.write / NOMINAL_CANDIDATE)
            heads.append(head)
    return heads


def _by_logit(residual: Residual, gains: RankingGains, sign: float) -> Head:
    """A head that attends to candidates by sign * logit."""
    head = residual.head()
    user, item = residual.matched
    scale = math.sqrt(_UNIT * gains.match)
    head.match(sign * scale * user, scale * item)
    head.match(sign * scale * residual.history_similarity, scale * residual.similarity)
    head.prefer(residual.popularity, sign * gains.popularity * gains.match)
    head.match(sign * gains.series * residual.series_weight[None], gains.match * residual.in_series[None])
    return head


def correction_heads(
    residual: Residual, gains: CorrectionGains, ranking: RankingGains, signs: tuple[float, ...]
) -> list[Head]:
    """The end takes back from every candidate what it has of the candidate's code (sign 1), or lacks of it (-1).

    The codes of 20 candidates in 163 dimensions overlap: a likely one lends its neighbours some of its score.
    """
    return [_correction(residual, gains, ranking, sign, part) for sign in signs for part in residual.identity_parts]


def _correction(
    residual: Residual, gains: CorrectionGains, ranking: RankingGains, sign: float, part: torch.Tensor
) -> Head:
    head = residual.head()
    scale = math.sqrt(_UNIT * gains.match)
    head.match(sign * scale * part, scale * part)
    _at_the_end(residual, ranking, head)
    head.copy(part, part, -sign * gains.write / NOMINAL_CANDIDATE)
    return head


def _at_the_end(residual: Residual, gains: RankingGains, head: Head) -> None:
    """Candidates are attended from the end of a prompt, the begin of the text from elsewhere."""
    head.match(gains.gate * residual.open_quote[None], gains.gate * residual.candidate_type[None])
    head.prefer(residual.start, gains.sink)
