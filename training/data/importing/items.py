"""Fields of items: an id, a title, a description and categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from models.errors import DataError
from training.data.dataset import Reading
from training.data.importing.builder import DatasetBuilder
from training.data.importing.columns import Columns, find, flag, has_headline, need, not_taken, optional
from training.data.importing.ids import EXACT_FLOAT, EXACT_SINGLE, IdColumn
from training.data.importing.ledger import BadRowError
from training.data.importing.lists import SEPARATORS, ListColumn, nameless
from training.data.importing.parquet import refusal
from training.data.importing.source import Advance
from training.data.importing.table import Table
from training.data.importing.texts import is_page_script, parse_text

LOOKS = {"time": "a time", "rating": "a rating", "categories": "categories"}


class ItemTexts:
    """The columns of a table that describe items.

    Args:
        table: of items, or of interactions with titles.
        columns: which columns hold what.

    Raises:
        DataError: there is no title column, or a column cannot hold what it should.
    """

    def __init__(self, table: Table, columns: Columns) -> None:
        self.table = table
        self.title = need(table, columns, "title")
        self.description = optional(table, columns, "description")
        self.categories = optional(table, columns, "categories")
        roles = {"title": self.title, "description": self.description, "categories": self.categories}
        if self.description == self.title:
            roles["description"] = None
        self.roles = {role: name for role, name in roles.items() if name is not None}
        for role, name in self.roles.items():
            check_type(table, name, role)
        self._lists = ListColumn((), columns.separator)
        if self.categories is not None:
            sample = table.column(self.categories)
            self._lists = ListColumn(sample, columns.separator)
            keys = nameless(sample)
            if keys is not None:
                raise DataError(
                    f"{table.source}: column {self.categories} holds objects without a name, with {', '.join(keys)};"
                    f" choose another with {flag('categories')}, or write their names as a list"
                )

    @property
    def wanted(self) -> list[str]:
        """The columns to read, in the order in which `parse` takes them."""
        return list(self.roles.values())

    def parse(self, item_id: str, values: Sequence[Any]) -> tuple[str, str, tuple[str, ...]]:
        """Title, description and categories.

        Raises:
            BadRowError: the title is empty, or script of a page.
        """
        given = dict(zip(self.roles, values, strict=True))
        title = parse_text(given["title"])
        if not title:
            said = given["title"]
            what = "has an empty title" if said in (None, "") else f"has a title that says nothing ({said!r:.60})"
            detail = f"item {item_id!r} {what}; give it one, or name another column with --title-column"
            raise BadRowError("empty title", detail)
        if is_page_script(title):
            detail = f"item {item_id!r} has script for a title ({title:.60}); give it one"
            raise BadRowError("page script as title", detail)
        categories = self._lists.parse(given["categories"]) if "categories" in given else ()
        return title, parse_text(given.get("description")), categories

    def values(self) -> dict[str, str]:
        """How values are spelled."""
        return {} if self.categories is None else {"categories": self._lists.described()}

    def warnings(self) -> list[str]:
        """What may have been meant otherwise."""
        if not self._lists.unparted:
            return []
        return [
            f"{self.table.source.name}: {SEPARATORS[self._lists.unparted]} in column {self.categories} were left in the"
            f" names; if they part names, pass --categories-separator '{self._lists.unparted}'"
        ]


def read_items(table: Table, columns: Columns, builder: DatasetBuilder, advance: Advance) -> None:
    """Read a table of items.

    Raises:
        DataError: a needed column is missing, or a row is bad and that is an error.
    """
    key = need(table, columns, "item_id")
    check_type(table, key, "item")
    texts = ItemTexts(table, columns)
    ids = id_column(table, key, "item")
    for number, (raw, *values) in table.rows([key, *texts.wanted], builder.items, advance):
        item_id = None
        try:
            item_id = ids.parse(raw)
            builder.add_item(item_id, *texts.parse(item_id, values))
        except BadRowError as error:
            if item_id is not None and error.reason != "item id twice":
                builder.unusable_items.add(item_id)
            builder.items.bad(table.place(number), error)
    taken = {"item_id": key, **texts.roles}
    builder.warnings += texts.warnings()
    book(table, "items", taken, _id_values("item ids", ids) | texts.values(), ("categories",), builder)


def need_titles(table: Table, columns: Columns) -> ItemTexts:
    """The titles in a table of interactions, where there is no table of items.

    Raises:
        DataError: it has none, or what it has is the headline of a review.
    """
    if columns.title is None and find(table, columns, "title") is not None and has_headline(table):
        raise DataError(
            f"{table.place(1)}: column {find(table, columns, 'title')} stands among a review's columns and is taken for"
            " its headline, not for the item's title; give a table of items too, or name the title with --title-column"
        )
    if columns.title is None and find(table, columns, "title") is None:
        item = find(table, columns, "item")
        raise DataError(
            f"{table.place(1)}: no table of items was given, and no title column was recognised here; give a table with"
            f" item ids and titles, or name the title with --title-column. Where items have no text at all,"
            f" --title-column {item} makes their ids the titles. The columns are: {', '.join(table.header)}"
        )
    return ItemTexts(table, columns)


def id_column(table: Table, name: str, what: str) -> IdColumn:
    """The ids of a column; those of single precision have fewer digits.

    Args:
        table: has the column.
        name: of the column.
        what: user or item.
    """
    exact = EXACT_SINGLE if table.types.get(name) == pl.Float32 else EXACT_FLOAT
    return IdColumn(what, table.column(name), exact)


def check_type(table: Table, name: str, role: str) -> None:
    """Refuse a Parquet column whose type cannot hold `role`.

    Raises:
        DataError: it cannot.
    """
    reason = refusal(table.types.get(name), role)
    if reason is not None:
        option = flag("item_id" if role == "item" else role)
        raise DataError(f"{table.source}: column {name} {reason}; choose another with {option}, or convert it")


def book(
    table: Table,
    holds: str,
    taken: dict[str, str],
    values: dict[str, str],
    looked_for: Sequence[str],
    builder: DatasetBuilder,
) -> None:
    """Keep what the table was taken for, and name columns that look like something and were not taken."""
    left = not_taken(table, list(taken.values()), [role for role in looked_for if role not in taken or role == "time"])
    builder.readings.append(
        Reading(
            file=table.source.label,
            holds=holds,
            syntax=table.syntax,
            taken_for=dict(table.taken_for()),
            columns=taken,
            values=values,
            not_taken=tuple(f"{name} (looks like {LOOKS[role]})" for name, role in left),
        )
    )
    for role in looked_for:
        names = [name for name, looks in left if looks == role]
        if names and role not in taken:
            builder.warnings.append(
                f"{table.source.label}: nothing was taken for {LOOKS[role]}, though there is {', '.join(names)}:"
                f" {flag(role)} {names[0]}"
            )


def _id_values(what: str, ids: IdColumn) -> dict[str, str]:
    described = ids.described()
    return {} if described is None else {what: described}
