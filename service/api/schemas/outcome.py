"""The words of `service.outcome`, as answers describe them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from service import outcome

BestRanker = Annotated[
    outcome.Ranker | None, Field(description="The best ranker that took part; null if there was nothing to rank.")
]
Fallback = Annotated[outcome.Fallback | None, Field(description="Why the LLM did not rank.")]
