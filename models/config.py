"""The base of every config: frozen, serialisable, refusing unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen pydantic model. Unknown keys are errors, so a typo in a recipe never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")
