"""All routes that answer from a bundle."""

from __future__ import annotations

from fastapi import FastAPI

from service.api import about, explain, feedback, items, recommend, users
from service.api.problems import ANYWHERE, responses

PARTS = (recommend, explain, feedback, items, users, about)
"""What is asked for most comes first: routes are tried in order."""


def install(app: FastAPI) -> None:
    """Add them to `app`, each by itself: FastAPI looks for the route of a request at every level anew."""
    for part in PARTS:
        app.include_router(part.router, responses=responses(*ANYWHERE, 401, 422, 429, 503))
