"""Fields: moments, in the spelling of their column."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import polars as pl
from dateutil import parser as dateutil_parser

from models.errors import ConfigError
from training.data.importing.ledger import BadRowError
from training.data.importing.texts import is_missing

MICROSECONDS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
NAMED_UTC = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
ZONE_IN_BRACKETS = re.compile(r"\[[\w/+-]+\]$")
NUMERIC_DATE = re.compile(
    r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})"
    r"(?:[T,\s]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,6})\d*)?)?\s*([AaPp]\.?[Mm]\.?)?)?"
)
YEAR_FIRST = re.compile(r"(\d{4})([/.])(\d{1,2})\2(\d{1,2})(.*)")
SHORT_YEAR = re.compile(r"(?<!\d)\d{1,2}[/. -](?:\d{1,2}|[A-Za-z]{3,9})[/. -]\d{2}(?![\d:])")
MONTH_NAME = re.compile(r"\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b", re.IGNORECASE)
DAY_AND_YEAR = re.compile(r"(?<!\d)\d{1,2}(?!\d|:).*(?<!\d)\d{4}(?!\d)|(?<!\d)\d{4}(?!\d).*(?<!\d)\d{1,2}(?!\d|:)")
ZONE_LETTERS = re.compile(r"(?<![a-zA-Z])(?!AM|PM|UTC|GMT)[A-Z]{2,4}(?![a-zA-Z])")
MOST_SECONDS = 10**11
YEAR = 31_536_000
MAYBE_YEARS = 1900
UNITS = ((1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"), (1e20, "nanoseconds"))


class AmbiguousDatesError(Exception):
    """Day and month cannot be told apart by any value seen.

    Args:
        example: one of them.
    """

    def __init__(self, example: str) -> None:
        super().__init__(example)
        self.example = example


class TimeColumn:
    """One column of moments; those without a zone are UTC.

    Numbers are seconds to nanoseconds since 1970, told by their size, or compact dates (20190131) where half of the
    sample or more are. Texts are ISO 8601, RFC 2822, dates that name the month, or numeric dates, whose order of day
    and month is told by a day above 12, never guessed.

    Args:
        sample: the column's first values.
        wanted: a format of `strptime`; None tells it.
        more: all values of the column, asked for where the sample cannot tell days from months.

    Raises:
        AmbiguousDatesError: nor can they.
    """

    def __init__(
        self, sample: Iterable[Any], wanted: str | None = None, more: Callable[[], Iterable[Any]] = lambda: ()
    ) -> None:
        self._format = wanted
        self.spellings: dict[str, None] = {}
        self._seconds = False
        self._largest = 0
        self._compact = 0
        self._day_first: bool | None = None
        if wanted is not None:
            return
        texts = [str(value).strip() for value in sample if value is not None and not isinstance(value, (date, float))]
        texts = [text for text in texts if not is_missing(text)]
        self._compact = _compact_length(texts)
        numeric = next((text for text in texts if NUMERIC_DATE.fullmatch(text)), None)
        if numeric is not None:
            self._day_first = _day_first(texts)
            if self._day_first is None:
                self._day_first = _day_first(str(value).strip() for value in more())
            if self._day_first is None:
                raise AmbiguousDatesError(numeric)

    def parse(self, value: Any) -> int:
        """A moment in microseconds since 1970, UTC.

        Raises:
            BadRowError: it is missing, or not in the column's spelling.
        """
        kind = type(value)
        if (kind is str or kind is int) and self._format is None and not self._compact:
            # The usual case first: whole numbers, as text or not.
            try:
                number = int(value)
            except ValueError:
                pass
            else:
                if -MOST_SECONDS < number < MOST_SECONDS:
                    self._seconds = True
                    if number > self._largest:  # noqa: PLR1730 - a call for each row is dear
                        self._largest = number
                    return number * MICROSECONDS
                return self._scaled(number, value)
        if isinstance(value, datetime):
            return self._of_datetime(value, "dates of the file")
        if isinstance(value, date):
            return self._of_datetime(datetime(value.year, value.month, value.day), "dates of the file")
        if isinstance(value, (bool, list, dict)):
            inside = "; name what is inside, as in --time-column place.time" if isinstance(value, dict) else "; mend it"
            raise BadRowError("unparsable time", f"the time {value!r:.60} is no moment{inside}")
        text = "" if value is None else str(value).strip()
        if is_missing(text):
            raise BadRowError("missing time", f"the time is missing ({value!r}); fill it in")
        try:
            return self._of_text(text, value)
        except (ValueError, OverflowError):
            raise self._bad(value) from None

    def described(self) -> str:
        """How moments are spelled here, once they are read."""
        if self._format is not None:
            return f"{self._format}, UTC unless it has a zone"
        return " and ".join(self._told) or "no value"

    @property
    def _told(self) -> dict[str, None]:
        return dict.fromkeys(["seconds since 1970"] if self._seconds else []) | self.spellings

    def doubts(self, kind: pl.DataType | None) -> Iterator[str]:
        """What may have been meant otherwise, once moments are read.

        Args:
            kind: the column's type, where the file says it.
        """
        if len(self._told) > 1:
            yield f"times are spelled in several ways: {self.described()}"
        if list(self._told) == ["seconds since 1970"] and MAYBE_YEARS <= self._largest < YEAR:
            yield (
                f"all times are numbers up to {self._largest:,}, taken for seconds of 1970: that is right where they"
                " only count; years, months or days of a spreadsheet need --time-format or a conversion"
            )
        if kind == pl.Float32:
            yield "times are floating numbers of single precision, which cannot tell seconds apart; write them anew"

    def _of_text(self, text: str, value: Any) -> int:
        if self._format is not None:
            return self._of_datetime(datetime.strptime(text, self._format), self._format)
        if self._compact:
            if len(text) != self._compact:
                raise ValueError
            return self._of_datetime(datetime.strptime(text, COMPACT[self._compact]), "compact dates (YYYYMMDD)")
        try:
            number = float(text)
        except ValueError:
            return self._of_date(text)
        if not math.isfinite(number):
            raise ValueError
        return self._scaled(number, value)

    def _of_date(self, text: str) -> int:
        plain = ZONE_IN_BRACKETS.sub("", text)
        plain = NAMED_UTC.sub("", plain)
        try:
            return self._of_datetime(datetime.fromisoformat(plain), "ISO 8601")
        except ValueError:
            pass
        if numeric := NUMERIC_DATE.fullmatch(plain):
            return self._of_numeric(numeric)
        if first := YEAR_FIRST.fullmatch(plain):
            iso = f"{first[1]}-{int(first[3]):02}-{int(first[4]):02}{first[5]}"
            return self._of_datetime(datetime.fromisoformat(iso), "dates, year first")
        if MONTH_NAME.search(plain) and DAY_AND_YEAR.search(plain) and not _unclear_zone(text):
            return self._of_named_month(text)
        raise ValueError

    def _of_named_month(self, text: str) -> int:
        try:
            return self._of_datetime(parsedate_to_datetime(text), "dates that name the month")
        except (ValueError, TypeError, IndexError):
            moment = dateutil_parser.parse(text.replace("Posted ", ""), default=datetime(1970, 1, 1))
            return self._of_datetime(moment, "dates that name the month")

    def _of_numeric(self, found: re.Match[str]) -> int:
        if self._day_first is None:
            raise ValueError
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        day, month = (first, second) if self._day_first else (second, first)
        hour = int(found[5] or 0)
        if found[9]:
            if not 1 <= hour <= 12:
                raise ValueError
            hour = hour % 12 + (12 if found[9][0] in "pP" else 0)
        moment = datetime(year, month, day, hour, int(found[6] or 0), int(found[7] or 0))
        moment += timedelta(microseconds=int((found[8] or "0").ljust(6, "0")))
        return self._of_datetime(moment, "dates, day first" if self._day_first else "dates, month first")

    def _of_datetime(self, moment: datetime, spelling: str) -> int:
        self.spellings[spelling] = None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - EPOCH) // MICROSECOND

    def _scaled(self, number: float, value: Any) -> int:
        size = abs(number)
        unit = next((unit for most, unit in UNITS if size < most), None)
        if unit is None:
            raise self._bad(value)
        self.spellings[f"{unit} since 1970"] = None
        if unit == "seconds":
            self._largest = max(self._largest, math.ceil(number))
            return round(number * MICROSECONDS)
        if unit == "milliseconds":
            return round(number * 1000)
        return round(number) if unit == "microseconds" else round(number) // 1000

    def _bad(self, value: Any) -> BadRowError:
        if self._format is not None:
            detail = f"is not of the form {self._format} (--time-format)"
        elif self._compact:
            detail = "is no date as the first rows have it, such as 20190131"
        else:
            detail = "is neither a number of seconds nor ISO 8601"
            text = str(value).strip()
            if self._day_first is not None and NUMERIC_DATE.fullmatch(text):
                detail = f"does not fit the column, whose dates begin with the {'day' if self._day_first else 'month'}"
            elif SHORT_YEAR.search(text):
                detail += ", and a year of two digits is not guessed"
            elif _unclear_zone(text):
                detail += ", and letters other than UTC stand for several zones each"
        return BadRowError(
            "unparsable time",
            f"the time {value!r} {detail}; mend it, or say how times are written with --time-format, for example"
            " '%d/%m/%Y %H:%M'",
        )


def check_format(wanted: str | None) -> None:
    """Refuse a format that `strptime` does not know.

    Raises:
        ConfigError: it is none.
    """
    if wanted is None:
        return
    try:
        moment = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
        read = datetime.strptime(moment.strftime(wanted), wanted)
    except ValueError as error:
        raise ConfigError(f"time format {wanted!r} is not usable: {error}; give one such as '%d/%m/%Y'") from None
    if read.year == 1900 or "%" not in wanted:
        raise ConfigError(f"time format {wanted!r} has no year: give one such as '%d/%m/%Y %H:%M'")


def looks_like_time(sample: Iterable[Any]) -> bool:
    """Whether all values of a column are dates, or seconds or milliseconds of 1990 to 2100."""
    values = [value for value in sample if value is not None and not is_missing(str(value))]
    if not values:
        return False
    try:
        column = TimeColumn(values)
        moments = [column.parse(value) for value in values]
    except AmbiguousDatesError:
        return True
    except BadRowError:
        return False
    return all(631152000 <= moment // MICROSECONDS < 4102444800 for moment in moments)


def _compact_length(texts: Sequence[str]) -> int:
    """The length of compact dates, where half of the texts or more are; else 0.

    By chance a number of seconds hardly ever is one.
    """
    lengths = Counter(len(text) for text in texts if _is_compact(text))
    length, count = lengths.most_common(1)[0] if lengths else (0, 0)
    return length if 2 * count >= max(len(texts), 1) else 0


def _is_compact(text: str) -> bool:
    if not text.isdigit() or len(text) not in COMPACT:
        return False
    try:
        return 1900 <= datetime.strptime(text, COMPACT[len(text)]).year <= 2100
    except ValueError:
        return False


def _day_first(texts: Iterable[str]) -> bool | None:
    """Whether numeric dates begin with the day; None where no value tells."""
    for text in texts:
        found = NUMERIC_DATE.fullmatch(NAMED_UTC.sub("", text))
        if found and int(found[1]) > 12:
            return True
        if found and int(found[3]) > 12:
            return False
    return None


def _unclear_zone(text: str) -> bool:
    """Whether the text names a zone by letters other than UTC, which stand for several zones each."""
    return any(not MONTH_NAME.fullmatch(word) for word in ZONE_LETTERS.findall(text))
