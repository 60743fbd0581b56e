"""`GET /explain/genre` and `GET /explain/item`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from models.catalogue import MAX_GENRES
from service.api.schemas.base import Id, QueryBool, QueryInt, Request
from service.api.schemas.items import ItemReference
from service.api.schemas.outcome import BestRanker, Fallback
from service.outcome import SentenceSource

HEAD: dict[str, JsonValue] = {"bundle_version": "20260102-030405-1a2b3c4d", "variant": "control", "took_ms": 80.3}
BY_THE_BLEND: dict[str, JsonValue] = {"ranker": "blend", "fallback": "overload", "sentence_source": "template"}
"""FastAPI leaves null out of examples, so these have none."""
EVIDENCE: JsonValue = {"item_id": "i3", "title": "The Silent Harbor", "effect": {"probability": 0.31, "change": -0.21}}


class Effect(BaseModel):
    """What an item of the history does for a probability: both from 0 to 1, computed as the probability itself was."""

    probability: float = Field(description="What it is without the item in the history, all else as it is.")
    change: float = Field(
        description="That, less the probability with the item: below zero where the item speaks for what is explained."
    )


class Evidence(ItemReference):
    """An item of the history that may speak for a genre."""

    effect: Effect | None = Field(
        description="What it does for the genre's probability; null if it was not tried: only some items are, and none"
        " where time is short or nothing is known of the user."
    )


class Reason(ItemReference):
    """An item of the history that speaks for an item."""

    effect: Effect = Field(description="What it does for the item's probability, which falls without it.")


class FavoriteGenre(BaseModel):
    """A genre and what speaks for it."""

    genre: str
    probability: float = Field(description="Among all genres of the catalogue.")
    evidence: list[Evidence] = Field(description="Items of the history with this genre, latest first.")


class GenreQuery(Request):
    """Whose genres, how many, and in which form."""

    user_id: Id
    top_k: QueryInt = Field(3, ge=1, le=MAX_GENRES)
    stream: QueryBool = Field(False, description="Send the sentence as server-sent events.")


class ItemQuery(Request):
    """Which item for whom, and in which form."""

    user_id: Id
    item_id: Id
    stream: QueryBool = Field(False, description="Send the sentence as server-sent events.")


class Token(BaseModel):
    """A piece of the sentence: the event `token`."""

    text: str


class ExplanationHead(BaseModel):
    """What an explanation says of itself."""

    user_id: str
    ranker: BestRanker
    fallback: Fallback
    bundle_version: str
    variant: str
    took_ms: float


class Sentence(BaseModel):
    """What an explanation comes to."""

    sentence: str
    sentence_source: SentenceSource


class GenreStart(ExplanationHead):
    """Favourite genres, best first, without a sentence: the event `genres`."""

    genres: list[FavoriteGenre]


class GenreResponse(GenreStart, Sentence):
    """Favourite genres, best first, and a sentence about the first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "u42",
                    "genres": [{"genre": "Drama", "probability": 0.52, "evidence": [EVIDENCE]}],
                    "sentence": "The favorite movie genre of this user is Drama, because this user has watched"
                    " “The Silent Harbor”.",
                    **BY_THE_BLEND,
                    **HEAD,
                }
            ]
        }
    )


class ItemStart(ExplanationHead):
    """What speaks for an item, without a sentence: the event `item`."""

    item: ItemReference
    probability: float = Field(description="That the item comes next, if one of `among` does.")
    among: list[str] = Field(
        description="Ids of the items that the probability is shared among: this one, then the best others."
    )
    evidence: list[Reason] = Field(
        description="Items of the history without which this one is less probable, what makes the most of it first."
    )


class ItemResponse(ItemStart, Sentence):
    """What speaks for an item, and a sentence about it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "u42",
                    "item": {"item_id": "i9", "title": "Golden Night"},
                    "probability": 0.52,
                    "among": ["i9", "i4", "i17"],
                    "evidence": [EVIDENCE],
                    "sentence": "“Golden Night” is likelier for this user, because this user has watched “Harbor”.",
                    **BY_THE_BLEND,
                    **HEAD,
                }
            ]
        }
    )
