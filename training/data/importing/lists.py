"""Fields: the categories of an item, in any spelling of a list."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from training.data.importing.texts import parse_text

SEPARATORS = {"|": "bars", ";": "semicolons", ">": "arrows", ",": "commas", "/": "slashes"}
NAME_KEYS = ("name", "title", "label", "category", "genre", "value", "description")
# Not the `>` of "> 18", nor an arrow's tip.
ARROW = re.compile(r"\w\s*>{1,2}\s*\w")
NUMPY_ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[\w<>.'\"]+)?\)", re.DOTALL)
QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
WITHOUT_COMMAS = re.compile(rf"\[\s*(?:{QUOTED.pattern})(?:\s+(?:{QUOTED.pattern}))+\s*\]")
NO_CATEGORIES = "(no genres listed)"


class ListColumn:
    """One column of categories.

    Lists are told value by value: those of Parquet and JSON, and texts that spell one as JSON or Python do. Of other
    texts the separator is told by the column: bars and arrows part names; commas, semicolons and slashes only where
    parts come again in other combinations, as `Drama` does in `Drama` and `Action, Drama`: `Toys, Games` may be a name.

    Args:
        sample: the column's first values.
        separator: what parts names; None tells it.

    Attributes:
        separator: what parts names; empty where nothing does.
        unparted: commas or semicolons, where they stand in names that were left whole; else empty.
    """

    def __init__(self, sample: Iterable[Any], separator: str | None = None) -> None:
        self._given = separator
        values = list(sample)
        self._spelled = sum(_spelled(value) is not None for value in values)
        self._lists = sum(isinstance(value, (list, tuple, dict)) for value in values)
        self._known = {name for value in values for name in _names_of_lists(_spelled(value) or value)}
        texts = {value for value in values if isinstance(value, str) and _spelled(value) is None and value}
        texts = {text for text in map(parse_text, texts) if text}
        self.separator = separator if separator is not None else self._tell(texts)
        self.unparted = (
            "" if self.separator else next((each for each in ",;" if any(each in text for text in texts)), "")
        )

    def parse(self, value: Any) -> tuple[str, ...]:
        """The names, each once."""
        return tuple(dict.fromkeys(name for name in self._names(value) if name and name != NO_CATEGORIES))

    def described(self) -> str:
        """How lists are spelled here."""
        told = []
        if self._lists:
            told.append("lists")
        if self._spelled:
            told.append("lists spelled as JSON or Python")
        if self.separator:
            told.append(f"names parted by {SEPARATORS.get(self.separator, repr(self.separator))}")
        return ", ".join(told) or "one name"

    def _names(self, value: Any) -> Iterator[str]:
        if isinstance(value, str):
            spelled = _spelled(value)
            if spelled is not None:
                yield from _names_of_lists(spelled)
            elif self.separator and self.separator in value:
                # Entities hold a semicolon, which must not part them.
                yield from (parse_text(part) for part in parse_text(value).split(self.separator))
            else:
                yield parse_text(value)
        elif isinstance(value, (list, tuple, dict)):
            yield from _names_of_lists(value)
        elif value is not None:
            yield parse_text(value)

    def _tell(self, texts: set[str]) -> str:
        if any("|" in text for text in texts):
            return "|"
        if any(ARROW.search(text) for text in texts):
            return ">"
        return next((each for each in (",", ";", "/") if self._recur(texts, each)), "")

    def _recur(self, texts: set[str], separator: str) -> bool:
        """Whether parts of some combination stand in another one, or alone, too."""
        if not any(separator in text for text in texts):
            return False
        combinations: dict[str, int] = dict.fromkeys(self._known, 1)
        for text in texts:
            for part in {part.strip() for part in text.split(separator)}:
                combinations[part] = combinations.get(part, 0) + 1
        parted = [{part.strip() for part in text.split(separator)} for text in texts if separator in text]
        again = sum(any(part and combinations[part] > 1 for part in parts) for parts in parted)
        return 2 * again >= len(parted)


def _spelled(value: Any) -> Sequence[Any] | None:
    """The list that a text spells as JSON or Python; None where it spells none."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    if array := NUMPY_ARRAY.fullmatch(text):
        text = array[1]
    if not (text.startswith(("[", "{", "(")) and text.endswith(("]", "}", ")"))):
        return None
    if WITHOUT_COMMAS.fullmatch(text):
        # Python would glue them into one.
        return [first or second for first, second in QUOTED.findall(text)]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return _without_quotes(text)
    if isinstance(found, dict):
        return [found]
    return list(found) if isinstance(found, (list, tuple, set)) else None


def _without_quotes(text: str) -> Sequence[str] | None:
    """The list of `[Action, Indie]` and of `{Action,"Sci Fi"}`, as some databases spell it; None where it is none."""
    inner = text[1:-1].strip()
    if text[0] == "(" or any(letter in inner for letter in "[]{}'") or (text[0] == "{" and ":" in inner):
        return None
    return [part.strip() for part in next(csv.reader([inner], skipinitialspace=True), [])]


def _names_of_lists(value: Any) -> Iterator[str]:
    """The names in a list (of lists), an object with a name standing for it."""
    if isinstance(value, (list, tuple)):
        for part in value:
            if part is not None:
                yield from _names_of_lists(part) if isinstance(part, (list, tuple, dict)) else (parse_text(part),)
    elif isinstance(value, dict):
        named = next((value[key] for key in NAME_KEYS if key in value), None)
        if named is not None:
            yield parse_text(named)


def nameless(sample: Iterable[Any]) -> list[str] | None:
    """The keys of objects that have none of the usual keys for a name; None where all is well."""
    for value in sample:
        spelled = _spelled(value) or value
        for part in spelled if isinstance(spelled, (list, tuple)) else [spelled]:
            if isinstance(part, dict) and part and not set(NAME_KEYS) & set(part):
                return [str(key) for key in part]
    return None
