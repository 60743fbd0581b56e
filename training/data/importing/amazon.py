"""Amazon Reviews: JSON lines of 2014, 2018 and 2023, each a file of reviews and a file of metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from models.errors import DataError
from training.data.importing.builder import DatasetBuilder
from training.data.importing.ledger import BadRowError
from training.data.importing.reading import Advance, json_rows, parse_object, read_lines
from training.data.importing.values import parse_categories, parse_markup

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
USER_KEYS = ("reviewerID", "user_id")
ITEM_KEYS = ("parent_asin", "asin")
TIME_KEYS = ("unixReviewTime", "timestamp")
RATING_KEYS = ("overall", "rating")
CATEGORY_KEYS = ("categories", "category")


def sort_files(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Tell reviews from metadata by the first line: only reviews have a user.

    Raises:
        DataError: a file begins with neither.
    """
    reviews: list[Path] = []
    metadata: list[Path] = []
    for path in paths:
        lines = read_lines(path, lambda _: None)
        try:
            first = parse_object(next(lines))
        except BadRowError as error:
            raise DataError(f"{path}, line 1: {error.detail}") from None
        finally:
            lines.close()
        if _first_key(first, ITEM_KEYS) is None:
            raise DataError(f"{path}, line 1: has neither {' nor '.join(ITEM_KEYS)}; give Amazon reviews and metadata")
        (metadata if _first_key(first, USER_KEYS) is None else reviews).append(path)
    return reviews, metadata


def read_amazon(reviews: Sequence[Path], metadata: Sequence[Path], builder: DatasetBuilder, advance: Advance) -> None:
    """Read metadata, then reviews.

    Raises:
        DataError: one of the two is missing, or a row is bad and that is an error.
    """
    if not reviews or not metadata:
        missing = "metadata (meta_*.json.gz)" if reviews else "reviews"
        raise DataError(f"there is no file of {missing} among the sources: give both reviews and metadata")
    for path in metadata:
        for line, row in json_rows(path, builder.items, advance):
            try:
                builder.add_item(
                    _first_value(row, ITEM_KEYS),
                    parse_markup(row.get("title")),
                    parse_markup(row.get("description")),
                    parse_categories(_unescaped(_first_value(row, CATEGORY_KEYS)), separator="|"),
                )
            except BadRowError as error:
                builder.items.bad(f"{path}, line {line}", error)
    for path in reviews:
        for line, row in json_rows(path, builder.interactions, advance):
            try:
                builder.add_interaction(
                    _first_value(row, USER_KEYS),
                    _first_value(row, ITEM_KEYS),
                    _first_value(row, TIME_KEYS),
                    _first_value(row, RATING_KEYS),
                )
            except BadRowError as error:
                builder.interactions.bad(f"{path}, line {line}", error)


def _first_key(row: dict[str, Any], keys: Iterable[str]) -> str | None:
    return next((key for key in keys if key in row), None)


def _first_value(row: dict[str, Any], keys: Iterable[str]) -> Any:
    key = _first_key(row, keys)
    return None if key is None else row[key]


def _unescaped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unescaped(part) for part in value]
    return parse_markup(value)
