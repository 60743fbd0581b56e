"""Single values of input rows: ids, times, ratings, texts, categories."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from training.data.importing.ledger import BadRowError

MICROSECONDS = 1_000_000
MISSING_TEXTS = {"", "nan", "null", "none"}
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


def parse_id(value: Any, what: str) -> str:
    """A user or item id as text.

    Raises:
        BadRowError: there is none.
    """
    text = "" if _is_nothing(value) else str(value).strip()
    if not text:
        raise BadRowError(f"missing {what} id", f"the {what} id is missing; fill it in")
    return text


def parse_time(value: Any) -> int:
    """A moment in microseconds since 1970, UTC.

    Numbers are seconds, milliseconds, microseconds or nanoseconds, told apart by their size; texts are numbers
    or ISO 8601.

    Raises:
        BadRowError: it is missing, not a number, or not a time.
    """
    if isinstance(value, datetime):
        return _of_datetime(value)
    if isinstance(value, date):
        return _of_datetime(datetime(value.year, value.month, value.day))
    try:
        number: float = int(value)
        if isinstance(value, float) and value != number:
            number = value
    except (ValueError, TypeError, OverflowError):
        number = _parse_time_text(value)
    size = abs(number)
    if size < 1e11:
        return round(number * MICROSECONDS)
    if size < 1e14:
        return round(number * 1000)
    if size < 1e17:
        return round(number)
    if size < 1e20:
        return round(number) // 1000
    raise _bad_time(value)


def _parse_time_text(value: Any) -> float:
    text = "" if value is None else str(value).strip()
    if text.lower() in MISSING_TEXTS:
        raise BadRowError("missing time", f"the time is missing ({value!r}); fill it in")
    try:
        number = float(text)
    except ValueError:
        try:
            return _of_datetime(datetime.fromisoformat(text)) / MICROSECONDS
        except (ValueError, OverflowError):
            raise _bad_time(value) from None
    if not math.isfinite(number):
        raise _bad_time(value)
    return number


def _of_datetime(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * MICROSECONDS)


def _bad_time(value: Any) -> BadRowError:
    return BadRowError(
        "unparsable time", f"the time {value!r} is neither a number of seconds nor ISO 8601; convert the column"
    )


def parse_rating(value: Any) -> float:
    """A rating; NaN where there is none.

    Raises:
        BadRowError: it is there, but not a number.
    """
    try:
        return float(value)
    except (ValueError, TypeError):
        if value is None or str(value).strip().lower() in MISSING_TEXTS:
            return math.nan
        raise BadRowError("unparsable rating", f"the rating {value!r} is not a number; mend it") from None


def parse_text(value: Any) -> str:
    """A text on one line; nothing where there is none. A list of texts is joined."""
    if _is_nothing(value):
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(filter(None, (parse_text(part) for part in value)))
    return " ".join(str(value).split())


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def parse_markup(value: Any) -> str:
    """A text out of HTML: entities become characters, tags go."""
    return parse_text(TAG.sub(" ", html.unescape(parse_text(value))))


def parse_categories(value: Any, separator: str) -> tuple[str, ...]:
    """Category names, each once: a list (of lists) of texts, or a text parted by `separator`."""
    parts: Iterable[Any]
    if isinstance(value, (list, tuple)):
        parts = (name for part in value for name in parse_categories(part, separator="\0"))
    else:
        parts = parse_text(value).split(separator)
    return tuple(dict.fromkeys(filter(None, (parse_text(part) for part in parts))))
