"""Rows: a source as a table with named columns, whatever its syntax."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import polars as pl

from training.data.importing.ledger import Ledger, OnBadRow
from training.data.importing.source import Advance, Source

SAMPLE_ROWS = 1000
Row = tuple[int, Sequence[Any]]
"""The place of a row, its line or its number, and the values of the wanted columns."""


class Table(ABC):
    """A file with named columns.

    Args:
        source: the file.
        header: its column names.

    Attributes:
        types: of the columns, where the file says them.
        unit: what a row's place counts: lines of a text, rows of a Parquet file.
        syntax: how the file is written, for people.
    """

    unit = "line"
    syntax = ""

    def __init__(self, source: Source, header: Sequence[str]) -> None:
        self.source = source
        self.header = tuple(header)
        self.types: Mapping[str, pl.DataType] = {}

    @abstractmethod
    def rows(self, wanted: Sequence[str], ledger: Ledger, advance: Advance = lambda _: None) -> Iterator[Row]:
        """The sound rows; all are counted as read, and the broken ones booked.

        Args:
            wanted: columns of the header, in the order of the values.
            ledger: counts.
            advance: told of progress.

        Raises:
            DataError: the file cannot be read on, or a broken row is an error.
        """

    @property
    def sources(self) -> Sequence[Source]:
        """The files that it is read from."""
        return (self.source,)

    def taken_for(self) -> Mapping[str, str]:
        """What the file was taken for: encoding, delimiter, quoting and so on; final when all rows are read."""
        return {}

    def place(self, number: int) -> str:
        """File and line of a row."""
        return f"{self.source}, {self.unit} {number}"

    def sample(self, count: int = SAMPLE_ROWS) -> list[dict[str, Any]]:
        """The first sound rows, each by column."""
        rows = self.rows(self.header, Ledger(OnBadRow.SKIP))
        return [dict(zip(self.header, values, strict=True)) for _, values in islice(rows, count)]

    def column(self, name: str, count: int = SAMPLE_ROWS) -> list[Any]:
        """The first values of one column."""
        return [values[0] for _, values in islice(self.rows([name], Ledger(OnBadRow.SKIP)), count)]
