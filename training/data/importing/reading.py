"""Files as rows: plain or gzip, CSV, `::` separated, JSON lines and Parquet, one row in memory at a time."""

from __future__ import annotations

import ast
import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from models.errors import DataError
from training.data.importing.ledger import BadRowError, Ledger

Advance = Callable[[int], None]
"""Told how many more bytes of input have been read."""

GZIP_MAGIC = b"\x1f\x8b"
DELIMITERS = (",", "\t", ";", "|")
PROGRESS_LINES = 5_000
PARQUET_BLOCK = 100_000


@dataclass(frozen=True)
class Table:
    """A file with named columns.

    Attributes:
        path: the file.
        header: its column names.
        rows: given a ledger, yields (place, values) of the sound rows, and books the broken ones; `place` names
            the row for people: its line in the file, or its number in a Parquet file.
        unit: what `place` counts.
    """

    path: Path
    header: Sequence[str]
    rows: Callable[[Ledger], Iterator[tuple[int, Sequence[Any]]]]
    unit: str = "line"

    def place(self, number: int) -> str:
        """File and line of row `number`."""
        return f"{self.path}, {self.unit} {number}"


def read_lines(path: Path, advance: Advance) -> Generator[bytes, None, None]:
    """The lines of a plain or gzip file, line ends included, a UTF-8 byte order mark left out.

    Raises:
        DataError: the file cannot be read, is empty, or its gzip stream is cut short or damaged.
    """
    number = told = 0
    try:
        with path.open("rb") as raw:
            zipped = raw.peek(2)[:2] == GZIP_MAGIC
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if zipped else raw
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    yield line.removeprefix(codecs.BOM_UTF8)
                    continue
                yield line
                if number % PROGRESS_LINES == 0:
                    advance(raw.tell() - told)
                    told = raw.tell()
            advance(raw.tell() - told)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}, after line {number}: the gzip stream is cut short or damaged ({error}); fetch the file again"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if number == 0:
        raise DataError(f"{path} is empty: give a file with rows")


def csv_table(path: Path, advance: Advance, encoding: str = "utf-8", delimiter: str | None = None) -> Table:
    """A CSV file with a header line. The delimiter, unless given, is the one that parts the header most.

    Raises:
        DataError: the header cannot be read.
    """
    lines = read_lines(path, lambda _: None)
    first = next(lines)
    lines.close()
    try:
        head = first.decode(encoding)
    except UnicodeDecodeError:
        raise DataError(_not_encoded(f"{path}, line 1", encoding)) from None
    separator = delimiter or max(DELIMITERS, key=head.count)
    try:
        header = [name.strip() for name in next(csv.reader([head], delimiter=separator), [])]
    except csv.Error as error:
        raise DataError(f"{path}, line 1: no header can be read ({error}); give a CSV file with one") from None

    def rows(ledger: Ledger) -> Iterator[tuple[int, Sequence[Any]]]:
        decoder = _Decoder(read_lines(path, advance), encoding)
        reader = csv.reader(decoder, delimiter=separator)
        next(reader)
        width = len(header)
        while True:
            line = reader.line_num + 1
            decoder.damaged = False
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                ledger.read += 1
                problem = BadRowError("broken CSV", f"broken CSV ({error}), an open quote perhaps; mend the row")
                ledger.bad(f"{path}, line {line}", problem)
                continue
            if not row:
                continue
            ledger.read += 1
            if decoder.damaged:
                place = f"{path}, line {line}"
                ledger.bad(place, BadRowError("wrong encoding", _not_encoded("the row", encoding)))
            elif len(row) != width:
                problem = BadRowError(
                    "wrong number of columns",
                    f"{len(row)} columns where the header has {width}; mend or quote the row",
                )
                ledger.bad(f"{path}, line {line}", problem)
            else:
                yield line, row

    return Table(path, header, rows)


class _Decoder(Iterator[str]):
    """Decodes lines, and remembers that one could not be."""

    def __init__(self, lines: Iterable[bytes], encoding: str) -> None:
        self._lines = iter(lines)
        self._encoding = encoding
        self.damaged = False

    def __next__(self) -> str:
        line = next(self._lines)
        try:
            return line.decode(self._encoding)
        except UnicodeDecodeError:
            self.damaged = True
            return line.decode(self._encoding, errors="replace")


def _not_encoded(what: str, encoding: str) -> str:
    return f"{what} is not {encoding}; name the right one with --encoding, for example --encoding latin-1"


def dat_table(path: Path, header: Sequence[str], advance: Advance, encoding: str | None = None) -> Table:
    """A MovieLens `.dat` file: no header line, columns parted by `::`.

    Unless `encoding` is given, each line is read as UTF-8 or else as Latin-1: both are in use.
    """

    def rows(ledger: Ledger) -> Iterator[tuple[int, Sequence[Any]]]:
        for line, raw in enumerate(read_lines(path, advance), start=1):
            if not raw.strip():
                continue
            ledger.read += 1
            try:
                text = raw.decode(encoding or "utf-8")
            except UnicodeDecodeError:
                if encoding:
                    place = f"{path}, line {line}"
                    ledger.bad(place, BadRowError("wrong encoding", _not_encoded("the row", encoding)))
                    continue
                text = raw.decode("latin-1")
            row = text.rstrip("\r\n").split("::")
            if len(row) != len(header):
                problem = BadRowError(
                    "wrong number of columns",
                    f"{len(row)} columns parted by '::' where {len(header)} are expected"
                    f" ({'::'.join(header)}); mend the row",
                )
                ledger.bad(f"{path}, line {line}", problem)
                continue
            yield line, row

    return Table(path, header, rows)


def parquet_table(path: Path, advance: Advance) -> Table:
    """A Parquet file, read in blocks of rows.

    Raises:
        DataError: it is no readable Parquet file, or has no rows.
    """
    try:
        frame = pl.scan_parquet(path)
        header = frame.collect_schema().names()
        height = int(frame.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}; fetch or write it again") from None
    if height == 0:
        raise DataError(f"{path} is empty: give a file with rows")

    def rows(ledger: Ledger) -> Iterator[tuple[int, Sequence[Any]]]:
        size = path.stat().st_size
        for start in range(0, height, PARQUET_BLOCK):
            try:
                block = frame.slice(start, PARQUET_BLOCK).collect()
            except (pl.exceptions.PolarsError, OSError) as error:
                raise DataError(f"{path}, after row {start}: {error}; fetch or write it again") from None
            for number, row in enumerate(block.iter_rows(), start=start + 1):
                ledger.read += 1
                yield number, row
            advance(size * len(block) // height)

    return Table(path, header, rows, unit="row")


def json_rows(path: Path, ledger: Ledger, advance: Advance) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON lines file; Python literals, as some old dumps have them, are understood too."""
    for line, raw in enumerate(read_lines(path, advance), start=1):
        if not raw.strip():
            continue
        ledger.read += 1
        try:
            row = parse_object(raw)
        except BadRowError as error:
            ledger.bad(f"{path}, line {line}", error)
        else:
            yield line, row


def parse_object(raw: bytes) -> dict[str, Any]:
    """One line of JSON lines.

    Raises:
        BadRowError: it is no JSON object.
    """
    try:
        row = json.loads(raw)
    except UnicodeDecodeError:
        raise BadRowError("wrong encoding", "the row is not UTF-8; convert the file to UTF-8") from None
    except (ValueError, RecursionError):
        try:
            row = ast.literal_eval(raw.decode("utf-8").strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise BadRowError("broken JSON", "the row is no JSON object; mend it, one object a line") from None
    if not isinstance(row, dict):
        raise BadRowError("broken JSON", "the row is no JSON object; mend it, one object a line")
    return row
