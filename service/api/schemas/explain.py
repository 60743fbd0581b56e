"""`GET /explain/genre`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.api.schemas.items import ItemReference
from service.api.schemas.outcome import BestRanker, Fallback
from service.outcome import SentenceSource


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
    sentence_source: SentenceSource
    ranker: BestRanker
    fallback: Fallback
    bundle_version: str
    variant: str
    took_ms: float
