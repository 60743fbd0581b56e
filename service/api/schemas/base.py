"""What requests have in common: ids, times, and that unknown fields are refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from models.identifiers import MAX_ID_LENGTH

ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?([Zz]|(?P<hours>[+-]\d{2})|[+-]\d{2}:?\d{2})?)?", re.ASCII
)
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]


def _only_iso(value: object) -> object:
    """Numbers are refused: nobody could say whether they are seconds or milliseconds. Offsets may be hours alone."""
    if not isinstance(value, str) or not (found := ISO.fullmatch(value)):
        raise ValueError("an ISO 8601 time is needed, such as 2026-01-02T03:04:05Z")
    return f"{value}:00" if found["hours"] else value


def _as_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


Timestamp = Annotated[
    datetime,
    BeforeValidator(_only_iso),
    AfterValidator(_as_utc),
    Field(description="ISO 8601, without leap seconds; UTC if no offset is given."),
]


def _digits(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise ValueError("a whole number is needed")
    return value


def _true_or_false(value: object) -> object:
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("true or false is needed")
    return value


def _whole(value: object) -> object:
    """JSON has one kind of number: 5.0 is an integer there, true and "5" are none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool | str):
        raise ValueError("a whole number is needed")
    return value


WHOLE = BeforeValidator(_whole)
QueryInt = Annotated[int, BeforeValidator(_digits)]
QueryBool = Annotated[bool, BeforeValidator(_true_or_false)]


class Request(BaseModel):
    """A part of a request: a field that is not known is refused, so that a typo is not overlooked."""

    model_config = ConfigDict(extra="forbid")
