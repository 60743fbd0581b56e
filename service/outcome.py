"""What an answer says of itself: who ranked, and what it had to do without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

Ranker = Literal["llm", "blend", "popularity"]
"""Who placed an item, or the best that took part in an answer: the blend with the LLM, that without it, or nobody who
knows the user."""

Fallback = Literal["timeout", "overload", "llm_error", "cold_user"]
"""Why the LLM did not rank."""

SentenceSource = Literal["llm", "template"]
"""Who wrote the sentence of an explanation."""

FALLBACKS: tuple[Fallback, ...] = get_args(Fallback)


@dataclass(frozen=True)
class RankedItem:
    """An item number with its score and who placed it."""

    item: int
    score: float
    ranker: Ranker


@dataclass(frozen=True)
class Recommendation:
    """The answer.

    Attributes:
        items: best first.
        missing: item ids of the request that the catalogue does not have.
        ranker: the best ranker that took part; None if there was nothing to rank.
        fallback: why the LLM did not.
    """

    items: list[RankedItem] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    ranker: Ranker | None = None
    fallback: Fallback | None = None
