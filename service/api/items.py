"""`GET /items/{item_id}`."""

from __future__ import annotations

from fastapi import APIRouter

from models.errors import NotFoundError
from service.api.dependencies import ServingOf
from service.api.problems import responses
from service.api.routes import rest
from service.api.schemas.items import Item

router = APIRouter()


@router.get(f"/items/{rest('item_id')}", responses=responses(404), tags=["catalogue"])
async def get_item(item_id: str, serving: ServingOf) -> Item:
    """An item."""
    catalogue = serving.deployment.catalogue
    item = catalogue.index_of(item_id)
    if item is None:
        raise NotFoundError(f"item '{item_id}' is not in the catalogue")
    return Item(
        item_id=item_id,
        title=catalogue.titles[item],
        description=catalogue.descriptions[item],
        categories=list(catalogue.categories[item]),
        interactions=int(catalogue.interactions[item]),
        cold=not bool(catalogue.trained[item]),
    )
