"""Records of a delimited text, by a reader that knows physical lines.

A broken quote costs the row it stands in, and no other.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from training.data.importing.ledger import BadRowError
from training.data.importing.text import DamagedLine

MAX_RECORD_LINES = 1000
MAX_RECORD_SIZE = 1 << 22
LEARNED_ROWS = 200
NUMBER = re.compile(r"\s*-?\d+(\.\d+)?\s*")
OPEN = "unexpected end of data"
DAMAGED = BadRowError(
    "wrong encoding",
    "the row has bytes that are not of the file's encoding; mend it, or name the right one with --encoding",
)


@dataclass(frozen=True)
class Dialect:
    """How fields are parted.

    Attributes:
        delimiter: one character, or `::`.
        quote: what holds a field together; empty where quotes are text.
        escape: what takes the meaning of the next character; empty where nothing does.
    """

    delimiter: str
    quote: str = '"'
    escape: str = ""


class Shape:
    """What rows look like: how many columns, and in which of them all the first rows had numbers."""

    def __init__(self, width: int | None) -> None:
        self.width = width
        self._numeric: set[int] = set()
        self._learned = 0

    def learn(self, cells: Sequence[str]) -> None:
        """Take a whole row into account, while rows are still learned from."""
        if self._learned >= LEARNED_ROWS or len(cells) != self.width:
            return
        numeric = {place for place, cell in enumerate(cells) if NUMBER.fullmatch(cell)}
        # The first row may be a header, and says nothing then.
        self._numeric = numeric if self._learned <= 1 else self._numeric & numeric
        self._learned += 1

    def fits(self, cells: Sequence[str]) -> bool:
        """Whether `cells` could be a row of its own."""
        return len(cells) == self.width and all(NUMBER.fullmatch(cells[place]) for place in self._numeric)


class Records:
    """Iterates over (line, cells), or (line, what is broken) of every record; blank lines are none.

    A quoted field may span lines. It is taken for broken, and reading goes on with the line after its first, where
    it never closes, closes in the middle of a field, grows beyond all measure, or where each of its lines is a whole
    row by itself: then the quotes of two rows have met.

    Args:
        blocks: lines.
        dialect: how fields are parted.
        width: the number of columns; that of the first record where None.
        cut: whether the lines are a sample, whose last record may go on.

    Attributes:
        width: the number of columns.
        quoted: whole records that had quotes.
    """

    def __init__(
        self, blocks: Iterable[list[str]], dialect: Dialect, width: int | None = None, cut: bool = False
    ) -> None:
        self.width = width
        self.quoted = 0
        self._stream = chain.from_iterable(blocks)
        self._waiting: deque[str] = deque()
        self._dialect = dialect
        self._shape = Shape(width)
        self._cut = cut
        mark = re.escape(dialect.delimiter)
        self._null_cell = re.compile(rf"(?:(?<=^)|(?<={mark}))\\N(?=$|{mark})") if dialect.escape else None

    def __iter__(self) -> Iterator[tuple[int, list[str] | BadRowError]]:
        """Walk the lines once."""
        delimiter, quote, escape = self._dialect.delimiter, self._dialect.quote, self._dialect.escape
        waiting, stream, shape = self._waiting, self._stream, self._shape
        number, learning = 0, LEARNED_ROWS
        while True:
            line = waiting.popleft() if waiting else next(stream, None)
            if line is None:
                return
            number += 1
            if not line.strip(" \r"):
                continue
            if line.__class__ is DamagedLine:
                yield number, DAMAGED
                continue
            if (not quote or quote not in line) and (not escape or escape not in line):
                cells = line.split(delimiter)
            else:
                parsed = self._quoted(line)
                if parsed is None:
                    return
                cells_or_problem, further = parsed
                if isinstance(cells_or_problem, BadRowError):
                    yield number, cells_or_problem
                    number += further
                    continue
                cells = cells_or_problem
                self.quoted += 1
                if further:
                    yield number, cells
                    number += further
                    continue
            if self.width is None:
                self.width = shape.width = len(cells)
            if learning:
                learning -= 1
                shape.learn(cells)
            yield number, cells

    def _quoted(self, line: str) -> tuple[list[str] | BadRowError, int] | None:
        """The record that begins with `line`, and how many further lines it takes; None where a sample is cut."""
        taken: list[str] = []
        record, size = line, len(line)
        while True:
            try:
                cells = self._parse(record)
                break
            except csv.Error as error:
                following = self._following() if str(error) == OPEN and size < MAX_RECORD_SIZE else None
                if following is None and self._cut and str(error) == OPEN and len(taken) < MAX_RECORD_LINES:
                    return None
                if following is None or len(taken) >= MAX_RECORD_LINES:
                    taken += [] if following is None else [following]
                    return self._broken(taken, str(error)), 0
            taken.append(following)
            size += len(following) + 1
            # Lines without a quote cannot close the field; joining once is what keeps long fields cheap.
            while self._dialect.quote not in taken[-1] and len(taken) < MAX_RECORD_LINES:
                another = self._following()
                if another is None:
                    break
                taken.append(another)
                size += len(another) + 1
            record = "\n".join([line, *taken])
        if any(each.__class__ is DamagedLine for each in taken):
            return DAMAGED, len(taken)
        if taken and self._are_rows([line, *taken]):
            return self._broken(taken, "its lines are whole rows"), 0
        return cells, len(taken)

    def _following(self) -> str | None:
        return self._waiting.popleft() if self._waiting else next(self._stream, None)

    def _broken(self, taken: list[str], why: str) -> BadRowError:
        self._waiting.extendleft(reversed(taken))
        what = "is never closed" if why == OPEN else f"is out of place ({why})"
        return BadRowError(
            "broken quote",
            f"a quote in this row {what}; mend the row, or pass --quoting none where quotes are part of the text,"
            " --escape '\\' where quotes in a text are written as \\\"",
        )

    def _parse(self, record: str) -> list[str]:
        if self._null_cell is not None:
            record = self._null_cell.sub("", record)
        dialect = self._dialect
        reader = csv.reader(
            [record],
            delimiter=dialect.delimiter,
            quotechar=dialect.quote or None,
            quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
            escapechar=dialect.escape or None,
            skipinitialspace=dialect.delimiter != " ",
            strict=True,
        )
        return next(reader)

    def _are_rows(self, lines: Sequence[str]) -> bool:
        """Whether each of the lines could stand alone, quotes taken as text where they are broken."""
        for line in lines:
            try:
                cells = self._parse(line)
            except csv.Error:
                cells = line.split(self._dialect.delimiter)
            if not self._shape.fits(cells):
                return False
        return True
