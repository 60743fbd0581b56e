"""Rows of JSON: an object a line, an array of objects, or objects one after the other."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from models.errors import DataError
from training.data.importing.ledger import BadRowError, Ledger
from training.data.importing.source import Advance, Source
from training.data.importing.table import Row, Table
from training.data.importing.text import DamagedLine, Text

MAX_OBJECT = 64 << 20
HEADER_OBJECTS = 1000
MAX_DEPTH = 3
BLANK = re.compile(r"[ \t\r\n,]*")
BROKEN = BadRowError("broken JSON", "the row is no JSON object; mend it, one object a line")
DAMAGED = BadRowError("wrong encoding", "the row is not UTF-8; name the encoding with --encoding, or convert the file")


def looks_like_json(head: str) -> bool:
    """Whether a text begins as JSON does."""
    return head.lstrip("\ufeff \t\r\n")[:1] in ("{", "[")


class JsonTable(Table):
    """JSON objects as rows; the columns are the keys of the first thousand.

    A key may be of objects inside, three deep: `a.b` is `b` in the object of `a`.
    A list of objects makes a row of each where columns inside of it are wanted: `{"user": 1, "plays": [{"game": 2}]}`
    has the columns `user` and `plays.game`.

    Args:
        source: the file.
        encoding: None is UTF-8, or what a byte order mark says.

    Raises:
        DataError: it holds no objects.
    """

    syntax = "JSON"

    def __init__(self, source: Source, encoding: str | None) -> None:
        self._encoding = encoding
        text = Text(source, encoding, single_byte=False)
        lines = text.sample()[0]
        self._by_line = _is_by_line(lines)
        self._layout = "an object a line"
        if not self._by_line:
            first = next((line for line in lines if line.strip()), "")
            self._layout = "an array of objects" if first.lstrip().startswith("[") else "objects over several lines"
        self._literals = False
        super().__init__(source, ())
        keys: dict[str, None] = {}
        problem = None
        for count, (_, row) in enumerate(self._objects(lambda _: None), start=1):
            if isinstance(row, BadRowError):
                problem = problem or row
            else:
                keys.update(dict.fromkeys(_keys(row)))
            if count >= HEADER_OBJECTS:
                break
        if not keys:
            raise DataError(
                f"{source}, line 1: {problem.detail if problem else 'there is no JSON object; give objects with keys'}"
            )
        self.header = tuple(keys)

    def rows(self, wanted: Sequence[str], ledger: Ledger, advance: Advance = lambda _: None) -> Iterator[Row]:
        """See `Table.rows`."""
        plain = not any("." in name for name in wanted)
        for line, row in self._objects(advance):
            if isinstance(row, BadRowError):
                ledger.read += 1
                ledger.bad(self.place(line), row)
            elif plain:
                ledger.read += 1
                yield line, [row.get(name) for name in wanted]
            else:
                for part in _parts(row, wanted):
                    ledger.read += 1
                    yield line, [_value(part, name) for name in wanted]

    def taken_for(self) -> Mapping[str, str]:
        """See `Table.taken_for`."""
        return {"layout": self._layout + (", as Python literals" if self._literals else "")}

    def _objects(self, advance: Advance) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
        text = Text(self.source, self._encoding, single_byte=False)
        return self._lines(text, advance) if self._by_line else _stream(text, advance)

    def _lines(self, text: Text, advance: Advance) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
        for number, line in enumerate(chain.from_iterable(text.lines(advance)), start=1):
            if not line or line.isspace():
                continue
            if line.__class__ is DamagedLine:
                yield number, DAMAGED
                continue
            try:
                rows = [json.loads(line)]
            except (ValueError, RecursionError):
                rows = self._several(line)
            for row in rows:
                yield number, row if isinstance(row, dict) else BROKEN

    def _several(self, line: str) -> list[Any]:
        """What a line holds that is no JSON value: several of them, or one as Python spells it; None is broken."""
        decoder, rows, at = json.JSONDecoder(), [], BLANK.match(line).end()  # type: ignore[union-attr]
        while at < len(line) and (found := _first_object(decoder, line, at)) is not None:
            rows.append(found[0])
            at = BLANK.match(line, found[1]).end()  # type: ignore[union-attr]
        if at == len(line):
            return rows
        literal = _literal(line)
        self._literals |= literal is not None
        return [literal]


def _literal(line: str) -> Any:
    """Python's spelling, as some old dumps have it: {'asin': '1', 'title': "It's"}."""
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _is_by_line(lines: Sequence[str]) -> bool:
    """Whether the first line that says anything is a whole object, or is meant to be one."""
    full = [line.strip() for line in lines if line.strip()]
    if not full:
        return True
    if full[0].startswith("["):
        return False
    # An object spread over lines goes on with a key or a bracket, and an object a line with the next object.
    return len(full[0]) > 1 and not (len(full) > 1 and not full[1].startswith("{") and not full[0].endswith("}"))


def _stream(text: Text, advance: Advance) -> Iterator[tuple[int, dict[str, Any] | BadRowError]]:
    """Objects in arrays, or one after the other.

    Raises:
        DataError: one is broken or an array is cut short: where the next begins nobody can tell then.
    """
    decoder = json.JSONDecoder()
    buffer, at, line, inside = "", 0, 1, False
    blocks = text.lines(advance)
    while True:
        begin = BLANK.match(buffer, at).end()  # type: ignore[union-attr]
        line += buffer.count("\n", at, begin)
        at = begin
        if buffer.startswith("]" if inside else "[", at):
            inside, at = not inside, at + 1
            continue
        found = _first_object(decoder, buffer, at)
        if found is None:
            block = next(blocks, None)
            if block is None and at < len(buffer):
                raise DataError(f"{text.source}, line {line}: broken JSON; an array cannot be read on: mend it")
            if block is None and inside:
                raise DataError(f"{text.source}, line {line}: the array has no end, it is cut short; fetch it again")
            if block is None:
                return
            if len(buffer) - at > MAX_OBJECT:
                raise DataError(f"{text.source}, line {line}: broken JSON, an object has no end; mend it")
            buffer, at = buffer[at:] + "".join(f"{each}\n" for each in block), 0
            continue
        row, end = found
        yield line, row if isinstance(row, dict) else BROKEN
        line += buffer.count("\n", at, end)
        at = end


def _first_object(decoder: json.JSONDecoder, buffer: str, at: int) -> tuple[Any, int] | None:
    """The value that stands at `at`, and where it ends; None where it is broken, or may go on."""
    try:
        row, end = decoder.raw_decode(buffer, at)
    except (ValueError, RecursionError):
        return None
    # A number may go on in the next block; an object, list or text cannot.
    return (row, end) if end < len(buffer) or buffer[end - 1] in '}]"' else None


def _keys(row: Mapping[str, Any], depth: int = MAX_DEPTH) -> Iterator[str]:
    for key, value in row.items():
        yield key
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and depth > 1:
            yield from (f"{key}.{name}" for name in _keys(inner, depth - 1))


def _parts(row: Mapping[str, Any], wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The row once for each object of the one list that `wanted` reaches into, or just once."""
    for name in wanted:
        key = name.partition(".")[0]
        inner = row.get(key)
        if name not in row and isinstance(inner, list):
            for part in inner:
                yield {**row, key: part}
            return
    yield row


def _value(row: Mapping[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    key, _, rest = name.partition(".")
    inner = row.get(key)
    return _value(inner, rest) if isinstance(inner, dict) and rest else None
