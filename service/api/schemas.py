"""Requests and answers, as the OpenAPI document shows them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Id = Annotated[str, Field(min_length=1, max_length=256)]
MAX_HISTORY = 1000
MAX_EVENTS = 1000
MAX_RESULTS = 1000


def _only_iso(value: object) -> object:
    """Numbers are refused: nobody could say whether they are seconds or milliseconds."""
    if not isinstance(value, str) or not re.match(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("an ISO 8601 time is needed, such as 2026-01-02T03:04:05Z")
    return value


def _as_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


Timestamp = Annotated[
    datetime,
    BeforeValidator(_only_iso),
    AfterValidator(_as_utc),
    Field(description="ISO 8601; UTC if no offset is given."),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HistoryEntry(_Request):
    """An item that the user met."""

    item_id: Id
    timestamp: Timestamp | None = None


class Filter(_Request):
    """What may be recommended."""

    categories: list[Id] = Field([], max_length=100, description="Only items with one of these.")
    exclude_item_ids: list[Id] = Field([], max_length=10_000, description="Never these.")
    exclude_seen: bool | None = Field(
        None,
        description="Drop items of the history. By default when retrieving; given candidates are taken as they are.",
    )


class RecommendRequest(_Request):
    """Whom to recommend to, and what from. `user_id` or `history` is required."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["user_id"], "properties": {"user_id": {"type": "string"}}},
                {"required": ["history"], "properties": {"history": {"type": "array"}}},
            ],
            "examples": [{"user_id": "u42", "num_results": 10, "return_metadata": ["title"]}],
        }
    )

    user_id: Id | None = Field(None, description="A user, known or not.")
    history: list[HistoryEntry] | None = Field(
        None,
        max_length=MAX_HISTORY,
        description="Appended to the stored history; used alone for an unknown user. Sorted by time if every entry"
        " has one, else taken as oldest first.",
    )
    num_results: int | None = Field(
        None, ge=1, le=MAX_RESULTS, description="10 by default, or all candidates where these are given."
    )
    candidates: list[Id] | None = Field(
        None, description="Rank these instead of retrieving. None to rank gives an empty answer."
    )
    filter: Filter = Field(default_factory=Filter)
    return_metadata: list[Literal["title", "description", "categories", "interactions"]] = Field(
        [], max_length=4, description="What to tell of each item."
    )
    timeout_ms: int | None = Field(
        None, ge=1, description="The answer comes within this time, if need be by the CF ranking alone."
    )


class RecommendedItem(BaseModel):
    """One place of the ranking."""

    item_id: str
    rank: int
    score: float = Field(description="Probability over the ranked set; never rises with rank.")
    ranker: Literal["llm", "cf", "popularity"] = Field(description="Who placed this item.")
    metadata: dict[str, Any]


Ranker = Annotated[
    Literal["llm", "cf", "popularity"] | None,
    Field(description="The best ranker that took part; null if there was nothing to rank."),
]
Fallback = Annotated[
    Literal["timeout", "overload", "llm_error", "cold_user"] | None, Field(description="Why the LLM did not rank.")
]


class RecommendResponse(BaseModel):
    """A ranking, best first."""

    recommendation_id: str
    items: list[RecommendedItem]
    missing_item_ids: list[str] = Field(description="Ids of the request that the catalogue does not have.")
    ranker: Ranker
    fallback: Fallback
    bundle_version: str
    variant: str
    took_ms: float


class ItemReference(BaseModel):
    """An item by id and title."""

    item_id: str
    title: str


class FavoriteGenre(BaseModel):
    """A genre and what speaks for it."""

    genre: str
    probability: float = Field(description="Among all genres of the catalogue.")
    evidence: list[ItemReference] = Field(description="Items of the history with this genre, latest first.")


class GenreResponse(BaseModel):
    """Favourite genres, best first, and a sentence about the first."""

    user_id: str
    genres: list[FavoriteGenre]
    sentence: str
    sentence_source: Literal["llm", "template"]
    ranker: Ranker
    fallback: Fallback
    bundle_version: str
    variant: str
    took_ms: float


class FeedbackEvent(_Request):
    """A user met an item."""

    user_id: Id
    item_id: Id
    type: Literal["view", "click", "purchase", "like"] = "view"
    timestamp: Timestamp | None = Field(None, description="Now if not given.")
    recommendation_id: Id | None = Field(None, description="The answer that led there.")


class FeedbackRequest(_Request):
    """Events of any number of users."""

    events: list[FeedbackEvent] = Field(min_length=1, max_length=MAX_EVENTS)


class FeedbackResponse(BaseModel):
    """What was stored: all of it."""

    accepted: int
    missing_item_ids: list[str] = Field(description="Stored, but they count only once a bundle has these items.")


class Item(ItemReference):
    """An item."""

    description: str
    categories: list[str]
    interactions: int = Field(description="How often it was met in training.")
    cold: bool = Field(description="Whether the collaborative model never saw it.")


class HistoryItem(ItemReference):
    """An item of a history."""

    categories: list[str]


class User(BaseModel):
    """A user and the history that answers rest on, latest item first."""

    user_id: str
    history: list[HistoryItem]
    live_events: int = Field(description="How many of them came by feedback.")
    bundle_version: str


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


class Health(BaseModel):
    """Whether the service lives, or can take requests."""

    status: Literal["live", "ready"]


class FieldProblem(BaseModel):
    """One thing wrong with a request."""

    field: str
    message: str


class Problem(BaseModel):
    """An error, as in RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldProblem] = []
