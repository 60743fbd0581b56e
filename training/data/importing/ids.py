"""Fields: ids of users and items."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from models.identifiers import MAX_ID_LENGTH
from training.data.importing.ledger import BadRowError
from training.data.importing.texts import is_missing, is_visible

EXACT_FLOAT = 2**53
EXACT_SINGLE = 2**24
WHOLE_FLOAT = re.compile(r"(-?\d+)\.0+")
SCIENTIFIC = re.compile(r"-?\d(\.\d+)?[eE]\+\d+")
WHOLE = re.compile(rf"-?\d+|{WHOLE_FLOAT.pattern}|{SCIENTIFIC.pattern}")

OPTIONS = {"user": "--user-column", "item": "--item-column", "order": "--order-column"}


class IdColumn:
    """One column of ids.

    A column that held missing values was often made one of floating numbers by the program that wrote it: its ids read
    `10.0`. Where all of a column are numbers, and those with a fraction have none, they are read as `10`; where such a
    column has `1.23E+16`, digits are lost and the row is bad.

    Args:
        what: user, item or order.
        sample: the column's first values.
        exact: floating numbers from this one on have lost digits.

    Attributes:
        bent: whether the ids of the sample are numbers, and whole ones.
    """

    def __init__(self, what: str, sample: Iterable[Any], exact: int = EXACT_FLOAT) -> None:
        self.what = what
        self._exact = exact
        self._straightened = False
        told = [str(value).strip() for value in sample if not _is_nothing(value)]
        self.bent = bool(told) and all(WHOLE.fullmatch(text) for text in told)

    def parse(self, value: Any) -> str:
        """An id as text.

        Raises:
            BadRowError: there is none, it lost digits, is too long, or is no single value.
        """
        kind = type(value)
        if kind is float or kind is Decimal:
            value = self._of_float(value)
        elif kind is not str and kind is not int and value is not None:
            inside = f", or name what is inside, as in {OPTIONS[self.what]} place.id" if isinstance(value, dict) else ""
            raise self._bad("unusable", f"is {_shown(value)}, which is no id; give a text or a whole number{inside}")
        text = "" if value is None else str(value).strip()
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self._bad("broken", f"{text!r} holds half a character (a lone surrogate); mend it")
        if not text.isprintable() and any(unicodedata.category(letter) == "Cc" for letter in text):
            raise self._bad("broken", f"{text!r} holds control characters; mend it")
        if _is_nothing(text) or not is_visible(text):
            raise self._bad("missing", f"is missing{f' ({text!r})' if text else ''}; fill it in")
        if self.bent:
            text = self._straight(text)
        if len(text) > MAX_ID_LENGTH:
            raise self._bad("long", f"has {len(text)} characters, more than {MAX_ID_LENGTH}; shorten it")
        return text

    def described(self) -> str | None:
        """How its values are read, where that is not just as they stand."""
        return "floating numbers, 10.0 read as 10" if self._straightened else None

    def _of_float(self, value: float | Decimal) -> str | None:
        if math.isnan(value):
            return None
        if value in (float("inf"), float("-inf")):
            raise self._bad("unusable", f"is {value}, which is no id; give a text or a whole number")
        if value != int(value):
            raise self._bad("unusable", f"is the number {value}, which is no id; write it as text")
        if type(value) is float and abs(value) >= self._exact:
            raise self._lost(str(value))
        self._straightened = True
        return str(int(value))

    def _straight(self, text: str) -> str:
        if whole := WHOLE_FLOAT.fullmatch(text):
            if abs(int(whole[1])) >= self._exact:
                raise self._lost(text)
            self._straightened = True
            return whole[1]
        if SCIENTIFIC.fullmatch(text):
            raise self._lost(text)
        return text

    def _lost(self, text: str) -> BadRowError:
        return self._bad(
            "imprecise", f"{text} was a floating number and has lost digits; write the column as text or whole numbers"
        )

    def _bad(self, how: str, detail: str) -> BadRowError:
        return BadRowError(f"{how} {self.what} id", f"the {self.what} id {detail}")


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or is_missing(str(value))


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
