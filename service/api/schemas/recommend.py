"""`POST /recommend`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from service.api.schemas.base import WHOLE, Id, Request, Timestamp
from service.api.schemas.outcome import BestRanker, Fallback
from service.outcome import Ranker

MAX_HISTORY = 1000
MAX_RESULTS = 1000
MAX_TIMEOUT_MS = 86_400_000
"""A day; the service honours what `ALLMREC_MAX_TIMEOUT_MS` says of it."""


class HistoryEntry(Request):
    """An item that the user met."""

    item_id: Id
    timestamp: Timestamp | None = None


class Filter(Request):
    """What may be recommended."""

    categories: list[Id] = Field([], max_length=100, description="Only items with one of these.")
    exclude_item_ids: list[Id] = Field([], max_length=10_000, description="Never these.")
    exclude_seen: StrictBool | None = Field(
        None,
        description="Drop everything that the user ever met: in training, by feedback, in `history`. By default when"
        " retrieving; given candidates are taken as they are.",
    )


class RecommendRequest(Request):
    """Whom to recommend to, and what from. `user_id` or `history` is required."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["user_id"], "properties": {"user_id": {"type": "string"}}},
                {"required": ["history"], "properties": {"history": {"type": "array"}}},
            ],
            "examples": [
                {"user_id": "u42", "num_results": 10, "return_metadata": ["title"]},
                {
                    "history": [{"item_id": "i1", "timestamp": "2026-01-02T03:04:05Z"}],
                    "candidates": ["i2", "i3"],
                    "timeout_ms": 200,
                },
            ],
        }
    )

    user_id: Id | None = Field(None, description="A user, known or not.")
    history: list[HistoryEntry] | None = Field(
        None,
        max_length=MAX_HISTORY,
        description="Joined to the stored history; used alone for an unknown user. Put in order of time with it if"
        " every entry has one, else taken as oldest first and later than what is stored.",
    )
    num_results: Annotated[int, Field(ge=1, le=MAX_RESULTS), WHOLE] | None = Field(
        None, description="10 by default, or all candidates where these are given."
    )
    candidates: list[Id] | None = Field(
        None, description="Rank these instead of retrieving. None to rank gives an empty answer."
    )
    filter: Filter = Field(default_factory=Filter)
    return_metadata: list[Literal["title", "description", "categories", "interactions"]] = Field(
        [], max_length=4, description="What to tell of each item."
    )
    timeout_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS), WHOLE] | None = Field(
        None,
        description="The answer comes within this time, if need be by the blend's ranking alone.",
    )


class RecommendedItem(BaseModel):
    """One place of the ranking."""

    item_id: str
    rank: int
    score: float = Field(description="Probability over the ranked set; never rises with rank.")
    ranker: Ranker = Field(description="Who placed this item.")
    metadata: dict[str, Any]


class RecommendResponse(BaseModel):
    """A ranking, best first."""

    recommendation_id: str
    items: list[RecommendedItem]
    missing_item_ids: list[str] = Field(description="Ids of candidates and history that the catalogue does not have.")
    ranker: BestRanker
    fallback: Fallback
    bundle_version: str
    variant: str
    took_ms: float
