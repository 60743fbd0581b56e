"""`GET /about`."""

from __future__ import annotations

from pydantic import BaseModel


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
