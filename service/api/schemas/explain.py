"""`GET /explain/genre`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from models.catalogue import MAX_GENRES
from service.api.schemas.base import Id, QueryBool, QueryInt, Request
from service.api.schemas.items import ItemReference
from service.api.schemas.outcome import BestRanker, Fallback
from service.outcome import SentenceSource


class FavoriteGenre(BaseModel):
    """A genre and what speaks for it."""

    genre: str
    probability: float = Field(description="Among all genres of the catalogue.")
    evidence: list[ItemReference] = Field(description="Items of the history with this genre, latest first.")


class GenreQuery(Request):
    """Whose genres, how many, and in which form."""

    user_id: Id
    top_k: QueryInt = Field(3, ge=1, le=MAX_GENRES)
    stream: QueryBool = Field(False, description="Send the sentence as server-sent events.")


class GenreToken(BaseModel):
    """A piece of the sentence: the event `token`."""

    text: str


class GenreStart(BaseModel):
    """Favourite genres, best first, without a sentence: the event `genres`."""

    user_id: str
    genres: list[FavoriteGenre]
    ranker: BestRanker
    fallback: Fallback
    bundle_version: str
    variant: str
    took_ms: float


class GenreResponse(GenreStart):
    """Favourite genres, best first, and a sentence about the first."""

    sentence: str
    sentence_source: SentenceSource
