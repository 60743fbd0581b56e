"""The base of every config: frozen, serialisable, refusing unknown keys. What is wrong with one is told in a line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails


class Config(BaseModel):
    """A frozen pydantic model. Unknown keys are errors, so a typo in a recipe never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def explained(error: ValidationError, schema: type[BaseModel], whole: str = "the settings") -> str:
    """All that is wrong in one line, by keys, with near ones for those that are unknown.

    Args:
        error: of validating `schema`.
        schema: what was validated.
        whole: what it is called where no key of it is to blame.
    """
    return "; ".join(_fault(each, schema, whole) for each in error.errors())


def keys_at(schema: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The keys that a config may have at `location`; none where there is no section."""
    section: type[BaseModel] | None = schema
    for name in location:
        field = section.model_fields.get(name) if section else None
        section = next(_models(field.annotation), None) if field else None
    return list(section.model_fields) if section else []


def _fault(error: ErrorDetails, schema: type[BaseModel], whole: str) -> str:
    location = [str(part) for part in error["loc"]]
    if error["type"] != "extra_forbidden":
        # What validators raise is a sentence of its own.
        said = error["msg"].removeprefix("Value error, ")
        return f"'{'.'.join(location)}': {said}" if location else f"{whole}: {said}"
    known = keys_at(schema, location[:-1])
    if "loop" in known:
        known += keys_at(schema, [*location[:-1], "loop"])
    similar = difflib.get_close_matches(location[-1], known, n=1)
    hint = f", did you mean '{similar[0]}'?" if similar else ""
    return f"unknown key '{'.'.join(location)}'{hint}"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that `annotation` is, or is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
