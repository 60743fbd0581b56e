"""`GET /users/{user_id}`."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import ServingOf
from service.api.problems import responses
from service.api.routes import rest
from service.api.schemas.users import HistoryItem, User

router = APIRouter()


@router.get(f"/users/{rest('user_id')}", responses=responses(404), tags=["users"])
async def get_user(user_id: str, serving: ServingOf) -> User:
    """A user's history, as answers see it."""
    deployment = serving.deployment
    history = await serving.services.histories.of_known(deployment, user_id)
    catalogue = deployment.catalogue
    return User(
        user_id=user_id,
        history=[
            HistoryItem(
                item_id=catalogue.item_ids[item],
                title=catalogue.titles[item],
                categories=list(catalogue.categories[item]),
            )
            for item in history.items[::-1]
        ],
        live_events=history.live,
        bundle_version=deployment.version,
    )
