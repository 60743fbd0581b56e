"""Rows of CSV, TSV and other delimited text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter

from models.errors import DataError
from training.data.importing.dialect import Wished, sniff
from training.data.importing.ledger import BadRowError, Ledger
from training.data.importing.records import Dialect, Records
from training.data.importing.source import Advance, Source
from training.data.importing.table import Row, Table
from training.data.importing.text import DamagedLine, Text

EXCEL_HINT = re.compile(r'"?sep=(.)"?')
DELIMITER_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar", " ": "space", "\x01": "control character 1"}
MAX_HEADER = 100_000
REPEATED_HEADER = BadRowError(
    "repeated header", "the row is the header again, as where files were put together; take it out"
)


class DelimitedTable(Table):
    """A delimited text with a header line, or with names given.

    Args:
        source: the file.
        encoding: None tells it by the bytes.
        wished: what of the dialect is given.
        names: the column names of a file without header.
        named_by: the format whose columns those are, if it is not the user who named them.

    Raises:
        DataError: no header can be read.
    """

    syntax = "delimited text"

    def __init__(
        self,
        source: Source,
        encoding: str | None,
        wished: Wished,
        names: Sequence[str] | None = None,
        named_by: str | None = None,
    ) -> None:
        self._encoding, self._named_by = encoding, named_by
        self._text = Text(source, encoding)
        lines, cut = self._text.sample()
        self._preface = 0
        if lines and (hint := EXCEL_HINT.fullmatch(lines[0].strip())):
            wished = Wished(wished.delimiter or hint[1], wished.quoting, wished.escape)
            self._preface, lines = 1, lines[1:]
        lines = [line for line in lines if line.strip()]
        if not lines:
            raise DataError(f"{source} is empty: give a file with rows")
        if len(lines[0]) > MAX_HEADER:
            raise DataError(f"{source}, line 1: no header can be read, the line is too long; give a CSV file with one")
        self._width = None if names is None else len(names)
        self.dialect: Dialect = sniff(lines, wished, self._width, cut)
        self._has_header = names is None
        first = next(iter(Records([lines], self.dialect)))[1]
        if names is None and (isinstance(first, BadRowError) or isinstance(lines[0], DamagedLine)):
            raise DataError(
                f"{source}, line 1: no header can be read; give a CSV file with one, name the encoding with --encoding,"
                " or pass --quoting none where quotes are part of the text"
            )
        self.first_row = [] if isinstance(first, BadRowError) else [cell.strip() for cell in first]
        header = self.first_row if names is None else list(names)
        while names is None and len(header) > 1 and not header[-1]:
            header = header[:-1]
        super().__init__(source, header)

    def rows(self, wanted: Sequence[str], ledger: Ledger, advance: Advance = lambda _: None) -> Iterator[Row]:
        """See `Table.rows`. Empty cells beyond the last column are none."""
        self._text = text = Text(self.source, self._encoding)
        width = len(self.header)
        records = iter(Records(self._blocks(text, advance), self.dialect, width if not self._has_header else None))
        if self._has_header:
            next(records)
        pick = _picker([self.header.index(name) for name in wanted])
        offset, first = self._preface, self.first_row[0] if self.first_row else ""
        for line, cells in records:
            ledger.read += 1
            if isinstance(cells, BadRowError):
                ledger.bad(self.place(line + offset), cells)
            elif cells[0] == first and [cell.strip() for cell in cells] == self.first_row and self._has_header:
                ledger.bad(self.place(line + offset), REPEATED_HEADER)
            elif len(cells) == width or (len(cells) > width and not any(map(str.strip, cells[width:]))):
                yield line + offset, pick(cells)
            else:
                ledger.bad(self.place(line + offset), self._wrong_width(len(cells)))

    def taken_for(self) -> Mapping[str, str]:
        """See `Table.taken_for`."""
        dialect = self.dialect
        quoting = "none, quotes are text"
        if dialect.quote:
            quoting = f"double quotes, escaped by {dialect.escape}" if dialect.escape else "double quotes"
        return {
            "encoding": f"{self._text.encoding} (by {self._text.told_by})",
            "delimiter": DELIMITER_NAMES.get(dialect.delimiter, dialect.delimiter),
            "quoting": quoting,
            "header": "first line" if self._has_header else "none, names given",
        }

    def _blocks(self, text: Text, advance: Advance) -> Iterator[list[str]]:
        """The text's lines without what stands before the header."""
        skip = self._preface
        for lines in text.lines(advance):
            yield lines[skip:]
            skip = 0

    def _wrong_width(self, found: int) -> BadRowError:
        hint = ""
        if self._has_header:
            where = "the header has"
        elif self._named_by:
            where = f"{self._named_by} has"
        else:
            where, hint = "--columns names", ", or name as many as there are with --columns"
        detail = f"{found} column{'s' * (found != 1)} where {where} {len(self.header)}; mend or quote the row{hint}"
        return BadRowError("wrong number of columns", detail)


def _picker(places: Sequence[int]) -> Callable[[Sequence[str]], Sequence[str]]:
    """Picks the cells at `places`."""
    if len(places) == 1:
        return lambda cells: (cells[places[0]],)
    return itemgetter(*places)
