"""Amazon Reviews of 2014, 2018 and 2023: a table of reviews and one of metadata, as JSON or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from models.errors import DataError
from training.data.importing.columns import Columns
from training.data.importing.ledger import Ledger
from training.data.importing.source import Advance
from training.data.importing.table import Row, Table

USER_KEYS = ("reviewerID", "user_id")
ITEM_KEYS = ("parent_asin", "asin")
TIME_KEYS = ("unixReviewTime", "timestamp")
RATING_KEYS = ("overall", "rating")
CATEGORY_KEYS = ("categories", "category")
NEEDED = ("user", "item", "time", "title")
COLUMNS = Columns(
    user="user",
    item="item",
    time="time",
    item_id="item",
    title="title",
    separator="|",
)


def is_amazon(tables: Sequence[Table]) -> bool:
    """Whether all tables are reviews or metadata, and at least one of reviews as Amazon's are known."""
    known = [table for table in tables if _first(table, ITEM_KEYS) is not None]
    if len(known) != len(tables) or not any(table.syntax in {"JSON", "Parquet"} for table in tables):
        return False
    return any(table.syntax == "JSON" or {"reviewerID", "parent_asin"} & set(table.header) for table in tables)


def sort_tables(tables: Sequence[Table]) -> tuple[list[Table], list[Table]]:
    """Tell reviews from metadata: only reviews have a user.

    Raises:
        DataError: a table is neither, or one of the two is missing.
    """
    reviews: list[Table] = []
    metadata: list[Table] = []
    for table in tables:
        if _first(table, ITEM_KEYS) is None:
            keys = " nor ".join(ITEM_KEYS)
            raise DataError(f"{table.place(1)}: has neither {keys}; give Amazon reviews and metadata")
        (metadata if _first(table, USER_KEYS) is None else reviews).append(table)
    if not reviews or not metadata:
        missing = "metadata (meta_*.json.gz)" if reviews else "reviews"
        raise DataError(
            f"there is no file of {missing} among the sources: give both reviews and metadata. A title among reviews is"
            " their headline, no item's; to do without any text, make ids the titles: --format json (csv, parquet)"
            " --title-column parent_asin"
        )
    return reviews, metadata


def _first(table: Table, keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in table.header), None)


class _Edition(Table):
    """A table under the same names whatever the edition; of several keys the first with a value counts, row by row."""

    keys: ClassVar[Mapping[str, Sequence[str]]]

    def __init__(self, table: Table) -> None:
        self._table = table
        self._present = {role: [key for key in keys if key in table.header] for role, keys in self.keys.items()}
        super().__init__(table.source, [role for role, keys in self._present.items() if keys or role in NEEDED])
        self.unit, self.syntax = table.unit, table.syntax
        self.types = {role: table.types[keys[0]] for role, keys in self._present.items() if keys and table.types}

    def rows(self, wanted: Sequence[str], ledger: Ledger, advance: Advance = lambda _: None) -> Iterator[Row]:
        """See `Table.rows`."""
        keys = list(dict.fromkeys(key for role in wanted for key in self._present[role]))
        places = [[keys.index(key) for key in self._present[role]] for role in wanted]
        for number, values in self._table.rows(keys, ledger, advance):
            yield (
                number,
                [next((values[place] for place in each if values[place] is not None), None) for each in places],
            )

    def taken_for(self) -> Mapping[str, str]:
        """See `Table.taken_for`."""
        named = {role: " or ".join(keys) for role, keys in self._present.items() if keys != [role] and keys}
        return {**self._table.taken_for(), **{f"{role} is": keys for role, keys in named.items()}}


class Reviews(_Edition):
    """Reviews as interactions. The headline of a 2023 review, its `title`, is no item's and not among the columns."""

    keys: ClassVar = {"user": USER_KEYS, "item": ITEM_KEYS, "time": TIME_KEYS, "rating": RATING_KEYS}


class Metadata(_Edition):
    """Metadata as items."""

    keys: ClassVar = {
        "item": ITEM_KEYS,
        "title": ("title",),
        "description": ("description",),
        "categories": CATEGORY_KEYS,
    }
