"""Health."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """Whether the service lives, or can take requests."""

    status: Literal["live", "ready"]
