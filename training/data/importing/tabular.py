"""CSV and Parquet tables with any column names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from models.config import Config
from models.errors import DataError
from training.data.importing.builder import DatasetBuilder
from training.data.importing.ledger import BadRowError
from training.data.importing.reading import Advance, Table, csv_table, parquet_table
from training.data.importing.values import parse_categories, parse_text

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
NO_CATEGORIES = "(no genres listed)"

# Lower case, letters and digits only; the first that a header has is taken.
USER_NAMES = ("userid", "user", "uid", "customerid", "reviewerid", "memberid", "visitorid", "sessionid", "userno")
ITEM_NAMES = (
    *("itemid", "item", "iid", "productid", "parentasin", "asin", "movieid", "gameid", "bookid", "isbn"),
    *("songid", "trackid", "articleid", "newsid", "sku", "businessid", "appid", "product", "movie", "itemno"),
)
TIME_NAMES = (
    *("timestamp", "time", "unixreviewtime", "unixtime", "ts", "datetime", "date", "eventtime", "reviewtime"),
    *("createdat", "tdat", "unixtimestamp"),
)
RATING_NAMES = ("rating", "ratings", "overall", "score", "stars", "ratingvalue")
TITLE_NAMES = (
    *("title", "itemtitle", "name", "itemname", "movietitle", "booktitle", "producttitle", "productname"),
    *("prodname", "gametitle", "songtitle", "tracktitle", "movie"),
)
DESCRIPTION_NAMES = ("description", "itemdescription", "desc", "overview", "plot", "detaildesc")
CATEGORY_NAMES = ("categories", "category", "genres", "genre")


class Kind(StrEnum):
    """What a table holds."""

    INTERACTIONS = "interactions"
    ITEMS = "items"
    OTHER = "other"


class Columns(Config):
    """Which columns hold what. None finds the column by its usual names.

    Attributes:
        user, item, time, rating: columns of the interactions. Without time, rows are in order.
        item_id, title, description, categories: columns of the items; the last two are optional.
        separator: what parts the names in `categories`.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    item_id: str | None = None
    title: str | None = None
    description: str | None = None
    categories: str | None = None
    separator: str = "|"

    def merged(self, given: Columns) -> Columns:
        """These columns, except where `given` names others."""
        return self.model_copy(update=given.model_dump(exclude_defaults=True))


def open_table(path: Path, advance: Advance, encoding: str | None, delimiter: str | None) -> Table:
    """A CSV or Parquet file, told apart by its suffix."""
    if path.suffix == ".parquet":
        return parquet_table(path, advance)
    return csv_table(path, advance, encoding or "utf-8", delimiter)


def kind_of(table: Table, columns: Columns) -> Kind:
    """Tell by the columns what `table` holds."""
    has_item = find_column(table, columns.item, ITEM_NAMES) is not None
    if has_item and find_column(table, columns.user, USER_NAMES) is not None:
        return Kind.INTERACTIONS
    return Kind.OTHER if find_column(table, columns.title, TITLE_NAMES) is None else Kind.ITEMS


def read_tables(
    interactions: Sequence[Table], items: Sequence[Table], columns: Columns, builder: DatasetBuilder
) -> None:
    """Read items, then interactions. Without items tables, the interactions must carry the titles.

    Raises:
        DataError: a needed column is missing, or a row is bad and that is an error.
    """
    for table in items:
        _read_items(table, columns, builder)
    for table in interactions:
        _read_interactions(table, columns, builder, with_titles=not items)


def find_column(table: Table, given: str | None, names: Sequence[str]) -> int | None:
    """The position of the column: the `given` one, else the first known by one of `names`."""
    if given is not None:
        return table.header.index(given) if given in table.header else None
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in table.header]
    return next((plain.index(name) for name in names if name in plain), None)


def _need_column(table: Table, given: str | None, names: Sequence[str], flag: str) -> int:
    position = find_column(table, given, names)
    if position is None:
        wanted = f"column {given!r} is missing" if given is not None else "no such column was recognised"
        raise DataError(
            f"{table.path}, line 1: {wanted}; name the right one with {flag}."
            f" The columns are: {', '.join(table.header)}"
        )
    return position


def _optional_column(table: Table, given: str | None, names: Sequence[str], flag: str) -> int | None:
    return find_column(table, None, names) if given is None else _need_column(table, given, names, flag)


class _ItemReader:
    """Finds an items table's columns once and adds its rows."""

    def __init__(self, table: Table, columns: Columns, id_position: int) -> None:
        self._id = id_position
        self._title = _need_column(table, columns.title, TITLE_NAMES, "--title-column")
        self._description = _optional_column(table, columns.description, DESCRIPTION_NAMES, "--description-column")
        self._categories = _optional_column(table, columns.categories, CATEGORY_NAMES, "--categories-column")
        self._separator = columns.separator

    def add(self, row: Sequence[Any], builder: DatasetBuilder) -> None:
        description = "" if self._description is None else parse_text(row[self._description])
        named = () if self._categories is None else parse_categories(row[self._categories], self._separator)
        categories = () if named == (NO_CATEGORIES,) else named
        builder.add_item(row[self._id], parse_text(row[self._title]), description, categories)


def _read_items(table: Table, columns: Columns, builder: DatasetBuilder) -> None:
    names = (*ITEM_NAMES, "id")
    item_id = _need_column(table, columns.item_id or columns.item, names, "--item-id-column")
    reader = _ItemReader(table, columns, item_id)
    for number, row in table.rows(builder.items):
        try:
            reader.add(row, builder)
        except BadRowError as error:
            builder.items.bad(table.place(number), error)


def _read_interactions(table: Table, columns: Columns, builder: DatasetBuilder, with_titles: bool) -> None:
    user = _need_column(table, columns.user, USER_NAMES, "--user-column")
    item = _need_column(table, columns.item, ITEM_NAMES, "--item-column")
    time = _optional_column(table, columns.time, TIME_NAMES, "--time-column")
    rating = _optional_column(table, columns.rating, RATING_NAMES, "--rating-column")
    item_reader = _ItemReader(table, columns, item) if with_titles else None
    for number, row in table.rows(builder.interactions):
        try:
            if item_reader and not builder.has_item(row[item]):
                item_reader.add(row, builder)
                builder.items.read += 1
            builder.add_interaction(
                row[user],
                row[item],
                number if time is None else row[time],
                None if rating is None else row[rating],
            )
        except BadRowError as error:
            builder.interactions.bad(table.place(number), error)
