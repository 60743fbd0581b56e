"""How a delimited text is written: its delimiter, whether quotes mean anything, and what escapes them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from models.errors import ConfigError
from training.data.importing.records import Dialect, Records

DELIMITERS = (",", "\t", ";", "|", "::", "\x01")
UNQUOTED = ("\t", "|", "\x01")
SNIFFED_ROWS = 500


class Quoting(StrEnum):
    """What `--quoting` may say."""

    AUTO = "auto"
    DOUBLE = "double"
    NONE = "none"


@dataclass(frozen=True)
class Wished:
    """What of a dialect was asked for; None and `auto` are told by the file.

    Attributes:
        delimiter: what parts the columns.
        quoting: whether quotes hold a field together.
        escape: the character that takes the meaning of the next one.
    """

    delimiter: str | None = None
    quoting: Quoting = Quoting.AUTO
    escape: str | None = None

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: a character is none, or two settings contradict each other.
        """
        if self.delimiter is not None and (self.delimiter != "::" and len(self.delimiter) != 1):
            raise ConfigError(f"delimiter {self.delimiter!r} is not usable: give one character, such as ';', or '::'")
        if self.delimiter is not None and self.delimiter in '"\r\n':
            raise ConfigError(f"delimiter {self.delimiter!r} is not usable: give one character, such as ';', or '::'")
        if self.escape is not None and (len(self.escape) != 1 or self.escape in ('"', "\r", "\n", " ", self.delimiter)):
            raise ConfigError(f"escape {self.escape!r} is not usable: give one character, such as '\\'")
        if self.escape is not None and self.quoting is Quoting.NONE:
            raise ConfigError("--escape does not apply with --quoting none: leave one of them out")


def sniff(lines: Sequence[str], wished: Wished, width: int | None = None, cut: bool = True) -> Dialect:
    """The dialect under which most rows of a sample are whole.

    Args:
        lines: the sample, from the file's first row on; never empty.
        wished: what is given already.
        width: the number of columns, where known; else that of the first row.
        cut: whether the file goes on, so that the last record may.
    """
    delimiter = wished.delimiter or _delimiter(lines, width)
    doubled = Dialect(delimiter)
    if len(delimiter) > 1:
        return Dialect(delimiter, quote="")
    if wished.escape is not None:
        return replace(doubled, escape=wished.escape)
    if wished.quoting is not Quoting.AUTO or not any('"' in line for line in lines):
        return replace(doubled, quote="" if wished.quoting is Quoting.NONE else '"')
    broken, clean = _trial(lines, doubled, width, cut)
    if broken == 0:
        return doubled
    escaped = replace(doubled, escape="\\")
    if any('\\"' in line for line in lines) and _trial(lines, escaped, width, cut)[0] < broken:
        return escaped
    literal = replace(doubled, quote="")
    # Tabs and bars need no quotes, so one out of place is text; with commas it takes several, and no sound one.
    quotes_hold = lines[0].startswith('"') or (delimiter not in UNQUOTED and (clean > 0 or broken == 1))
    return doubled if quotes_hold or _trial(lines, literal, width, cut)[0] >= broken else literal


def _delimiter(lines: Sequence[str], width: int | None) -> str:
    """The delimiter that gives most rows as many columns as the first; among equals the one of most columns."""
    candidates = [each for each in DELIMITERS if each in lines[0]] or ([" "] if " " in lines[0].strip() else [","])
    if len(candidates) == 1:
        return candidates[0]

    def score(delimiter: str) -> tuple[float, int]:
        dialect = Dialect(delimiter, quote='"' if len(delimiter) == 1 else "")
        rows = Records([list(lines[:SNIFFED_ROWS])], dialect, width, cut=True)
        widths = [len(cells) for _, cells in rows if not isinstance(cells, Exception)]
        expected = width or (widths[0] if widths else 0)
        if expected < 2:
            return 0.0, 0
        return round(sum(each == expected for each in widths) / max(len(widths), 1), 1), expected

    return max(candidates, key=score)


def _trial(lines: Sequence[str], dialect: Dialect, width: int | None, cut: bool) -> tuple[int, int]:
    """How many rows are broken under `dialect`, and how many whole ones had quotes."""
    records = Records([list(lines)], dialect, width, cut)
    broken = 0
    for _, cells in records:
        if isinstance(cells, Exception) or (records.width and len(cells) != records.width):
            broken += 1
    return broken, records.quoted


csv.field_size_limit(1 << 26)  # one long description is no broken file; lines have a limit of their own
