"""Health."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """Whether the service lives."""

    status: Literal["live"]


class Readiness(BaseModel):
    """Whether the service can answer, and by what."""

    status: Literal["ready"]
    llm: Literal["up", "down"] = Field(description="While it is down, answers fall back to the blend's ranking.")
