"""The mixture of prompts that the LM is trained on."""

from __future__ import annotations

from pydantic import Field

from models.config import Config

MAX_TITLE_TOKENS = 16
"""What a prompt shows of a title in the product, see `PromptConfig.max_title_tokens`."""
MAX_HISTORY = 20
"""Twice what the product shows, so that a deployment may show more."""
GENRE_SHARPNESS = 0.6
"""Genres are means over many items, so they differ less than items do."""


class Mixture(Config):
    """What the prompts look like.

    Attributes:
        candidates: fewest and most candidates.
        twenty: share of prompts with exactly 20 candidates, if that lies in the range: what the paper ranks, and what
            serving asks for by default.
        title_tokens: most tokens of a title; a prompt's own limit is one of 1, 2, 4, 8, 16 up to this. Titles of one
            token ask for the ranking alone, longer ones for branching nodes deeper down.
        history: most history items.
        collisions: share of random-token titles that begin as another one does. High, because a pair of titles that
            begin alike makes one branching node, and real catalogues have many.
        series: of the prompts with a history, the share in which some candidates begin as titles of it do. Titles of
            one or two tokens cannot: they would be equal.
        genres: share of genre prompts.
        explanations: share of explanation prompts.
        answers: of the prompts that are no explanations, the share whose answer, drawn from the truth, is written out.
            Such a prompt says one token's worth at each node instead of a whole distribution, so the default is none.
        sharpness: median over prompts of the standard deviation of the candidates' logits, series left out; genre
            prompts have `GENRE_SHARPNESS` of it, and explanations, whose answer is in the titles, are not concerned.
            At 2.5 the likeliest of 20 candidates has about half of the mass; real users are nearer to ties.
    """

    candidates: tuple[int, int] = (5, 30)
    twenty: float = 0.5
    title_tokens: int = MAX_TITLE_TOKENS
    history: int = MAX_HISTORY
    collisions: float = 0.4
    series: float = 0.4
    genres: float = Field(0.15, ge=0, le=1)
    explanations: float = Field(0.1, ge=0, le=1)
    answers: float = Field(0.0, ge=0, le=1)
    sharpness: float = Field(2.5, gt=0)
