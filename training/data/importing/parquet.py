"""Rows of Parquet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from models.errors import DataError
from training.data.importing.ledger import BadRowError, Ledger
from training.data.importing.source import Advance, Source
from training.data.importing.table import Row, Table

MAGIC = b"PAR1"
BLOCK_ROWS = 100_000
UUID_BYTES = 16
NO_CELL = (pl.Duration, pl.Time, pl.Object)


class ParquetTable(Table):
    """A Parquet file, read in blocks of rows.

    Binary columns are text where they are UTF-8, UUIDs where all values have 16 bytes, and refused else.

    Args:
        source: the file.

    Raises:
        DataError: it is no readable Parquet file.
    """

    unit = "row"
    syntax = "Parquet"

    def __init__(self, source: Source) -> None:
        self._content = source.path if source.is_plain else source.content()
        try:
            frame = pl.scan_parquet(self._content)
            types = dict(frame.collect_schema())
            self._height = int(frame.select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(source, error) from None
        self._uuids: dict[str, bool] = {}
        types = {name: kind for name, kind in types.items() if kind != pl.Null}  # a column of nothing is none
        super().__init__(source, list(types))
        self.types = types

    def rows(self, wanted: Sequence[str], ledger: Ledger, advance: Advance = lambda _: None) -> Iterator[Row]:
        """See `Table.rows`."""
        size, done = self.source.size, 0
        for block in self._blocks(wanted):
            damaged = {name: _damaged(block[name]) for name in wanted if block.schema[name] == pl.Binary}
            for number, row in enumerate(self._as_text(block, wanted).iter_rows(), start=done + 1):
                ledger.read += 1
                bad = [name for name, rows in damaged.items() if number - done - 1 in rows and not self._uuids[name]]
                if bad:
                    detail = f"column {bad[0]} is binary and not UTF-8 here; write it as text"
                    ledger.bad(self.place(number), BadRowError("wrong encoding", detail))
                    continue
                yield number, row
            done += len(block)
            advance(size * len(block) // self._height)

    def taken_for(self) -> Mapping[str, str]:
        """See `Table.taken_for`."""
        told = {f"column {name}": "UUID" for name, is_uuid in self._uuids.items() if is_uuid}
        return told | {f"column {name}": "bytes as UTF-8" for name, is_uuid in self._uuids.items() if not is_uuid}

    def _blocks(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        frame = pl.scan_parquet(self._content).select(list(dict.fromkeys(wanted)))
        try:
            for block in frame.collect_batches(chunk_size=BLOCK_ROWS, maintain_order=True):
                self._settle_binary(block)
                yield block
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(self.source, error) from None

    def _settle_binary(self, block: pl.DataFrame) -> None:
        for name in (name for name, kind in block.schema.items() if kind == pl.Binary and name not in self._uuids):
            values = block[name].drop_nulls()
            texts = _decoded(values)
            if texts.null_count() == 0:
                self._uuids[name] = False
            elif len(values) and (values.bin.size() == UUID_BYTES).all():
                self._uuids[name] = True
            elif 2 * texts.null_count() < len(values):
                self._uuids[name] = False
            else:
                raise DataError(f"{self.source}: column {name} is binary and neither UTF-8 nor UUIDs; write it as text")

    def _as_text(self, block: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
        columns: list[pl.Series] = []
        for name in wanted:
            column = block[name]
            if column.dtype == pl.Binary and self._uuids[name]:
                texts = [None if raw is None else str(uuid.UUID(bytes=raw)) for raw in column]
                column = pl.Series(name, texts, dtype=pl.String)
            elif column.dtype == pl.Binary:
                column = _decoded(column)
            columns.append(column.alias(str(len(columns))))
        return pl.DataFrame(columns)


def refusal(kind: pl.DataType | None, role: str) -> str | None:
    """Why a column of this type cannot hold `role`; None where it can, or where types are not known.

    Args:
        kind: of the column.
        role: user, item, time, rating, title, description or categories.
    """
    if kind is None:
        return None
    nested = isinstance(kind, (pl.List, pl.Array, pl.Struct))
    if isinstance(kind, NO_CELL):
        return f"is of type {kind}, which says nothing here"
    if role in {"user", "item", "event", "order"} and (nested or kind == pl.Boolean or kind.is_temporal()):
        return f"is of type {kind}, which cannot be an id"
    if role in {"time", "rating"} and (nested or kind == pl.Boolean):
        return f"is of type {kind}, which is no {role}"
    if role == "rating" and kind.is_temporal():
        return f"is of type {kind}, which is no rating"
    if role in {"title", "description"} and (isinstance(kind, pl.Struct) or kind.is_temporal() or kind == pl.Boolean):
        return f"is of type {kind}, which is no text"
    if role == "categories" and (kind.is_temporal() or kind == pl.Boolean):
        return f"is of type {kind}, which names no category"
    return None


def _decoded(column: pl.Series) -> pl.Series:
    """Binary values as text; null where one is not UTF-8."""
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        texts = [_text(raw) for raw in column]
        return pl.Series(column.name, texts, dtype=pl.String)


def _text(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _damaged(column: pl.Series) -> frozenset[int]:
    """The places of values that are not UTF-8."""
    texts = _decoded(column)
    return frozenset((texts.is_null() & column.is_not_null()).arg_true().to_list())


def _unreadable(source: Source, error: Exception) -> DataError:
    return DataError(f"{source} cannot be read as Parquet: {error}; fetch or write it again")
