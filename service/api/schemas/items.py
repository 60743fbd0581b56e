"""`GET /items/{item_id}`, and how other answers name an item."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ItemReference(BaseModel):
    """An item by id and title."""

    item_id: str
    title: str


class Item(ItemReference):
    """An item."""

    description: str
    categories: list[str]
    interactions: int = Field(description="How often it was met in training.")
    cold: bool = Field(description="Whether the collaborative model never saw it.")
