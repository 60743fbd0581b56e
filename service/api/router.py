"""All routes that answer from a bundle."""

from __future__ import annotations

from fastapi import APIRouter

from service.api import about, explain, feedback, items, recommend, users
from service.api.problems import responses

router = APIRouter(responses=responses(401, 422, 503))
for part in (recommend, explain, feedback, items, users, about):
    router.include_router(part.router)
