"""`GET /users/{user_id}`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.api.schemas.items import ItemReference


class HistoryItem(ItemReference):
    """An item of a history."""

    categories: list[str]


class User(BaseModel):
    """A user and the history that answers rest on, latest item first."""

    user_id: str
    history: list[HistoryItem]
    live_events: int = Field(description="How many of them came by feedback.")
    bundle_version: str
