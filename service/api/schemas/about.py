"""`GET /about`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from models.bundle.blend import Lift


class Worth(BaseModel):
    """NDCG@10 gained, on validation users, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, lift: Lift) -> Worth:
        """As a bundle's manifest has it."""
        mean, low, high = lift.ndcg
        return cls(mean=mean, low=low, high=high)


class Signal(BaseModel):
    """What the blend without the LLM weighs."""

    id: str
    title: str
    lift: Worth | None = Field(description="What the blend loses without it; null if that was not measured.")


class About(BaseModel):
    """What is being served."""

    name: str
    bundle_version: str
    variant: str
    llm: str
    engine: str
    backbone: str
    items: int
    users: int
    noun: str
    verb: str
    past: str
    genres: list[str]
    sample_user_ids: list[str]
    ranker: Literal["llm", "blend"] = Field(description="Who ranks: the blend with the LLM, or that without it.")
    llm_lift: Worth | None = Field(
        description="What the LLM's scores add to the blend without them; null if nobody could be held out to say."
    )
    llm_lift_over_cf: Worth | None = Field(
        description="What they add to collaborative filtering alone; null if that was not measured."
    )
    llm_in_words: str = Field(description="The same for people.")
    signals: list[Signal] = Field(description="Of the blend without the LLM, what it would miss most first.")
    sources: list[str] = Field(description="Where candidates come from: cf, followed, text.")
    refitted: bool = Field(description="Whether all was fitted again on all interactions once it was chosen.")
