"""Fields of interactions: who, what, when, and perhaps how much it was liked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from models.errors import DataError
from training.data.importing.builder import DatasetBuilder
from training.data.importing.columns import find, flag, need, optional
from training.data.importing.items import book, check_type, id_column, need_titles
from training.data.importing.ledger import BadRowError, Ledger, OnBadRow
from training.data.importing.options import ImportOptions
from training.data.importing.source import Advance
from training.data.importing.table import Table
from training.data.importing.texts import is_missing, parse_text
from training.data.importing.times import MICROSECONDS, AmbiguousDatesError, TimeColumn

MAX_EVENT_NAMES = 1000
OTHER_RATING = "mend it, or name another column with --rating-column"


class InteractionReader:
    """Reads one table of interactions into a builder.

    Args:
        table: the table.
        options: which columns hold what, and which events count.
        builder: takes the rows.
        with_titles: whether the table's titles are the items' only ones.

    Raises:
        DataError: a needed column is missing, cannot hold what it should, or its dates are ambiguous.
    """

    def __init__(self, table: Table, options: ImportOptions, builder: DatasetBuilder, with_titles: bool) -> None:
        self._table, self._options, self._builder = table, options, builder
        columns = options.columns
        self.roles = {"user": need(table, columns, "user"), "item": need(table, columns, "item")}
        time, rating = optional(table, columns, "time"), self._rating()
        self.roles |= {role: name for role, name in (("time", time), ("rating", rating)) if name is not None}
        if options.events:
            self.roles["event"] = need(table, columns, "event")
        for role, name in self.roles.items():
            check_type(table, name, role)
        self._check_distinct()
        self._users = id_column(table, self.roles["user"], "user")
        self._items = id_column(table, self.roles["item"], "item")
        self._clock = None if time is None else self._time(time)
        self._texts = need_titles(table, columns) if with_titles else None
        self._retitled = 0
        self._events: Counter[str] = Counter()

    @property
    def has_written_times(self) -> bool:
        """Whether there is a time column whose values are not moments already, as those of Parquet are."""
        kind = self._table.types.get(self.roles.get("time", ""))
        return "time" in self.roles and (kind is None or not kind.is_temporal())

    def read_texts(self) -> None:
        """What items are, where these rows tell it: by the first of an item's rows in any file that says it."""
        if self._texts is None:
            return
        told = self._builder.told
        for _, (raw, *values) in self._table.rows([self.roles["item"], *self._texts.wanted], Ledger(OnBadRow.SKIP)):
            try:
                item_id = self._items.parse(raw)
                if item_id not in told:
                    told[item_id] = values[0], self._texts.parse(item_id, values)
            except BadRowError:
                continue

    def read(self, advance: Advance) -> None:
        """Read all rows, once the texts of all files were.

        Raises:
            DataError: a row is bad and that is an error, or a chosen event never occurs.
        """
        # A role that is absent is a None in each row, so that one loop serves all tables.
        order = ("user", "item", "time", "rating", "event")
        present = [role for role in order if role in self.roles]
        texts = [] if self._texts is None else self._texts.wanted
        wanted = [*(self.roles[role] for role in present), *texts]
        places = {role: place for place, role in enumerate(present)}
        time, rating, event = (places.get(role) for role in order[2:])
        ledger, add, after = self._builder.interactions, self._builder.add_interaction, len(present)
        for number, values in self._table.rows(wanted, ledger, advance):
            try:
                if event is not None and not self._is_chosen(values[event]):
                    continue
                item = self._item(values[1], values[after:])
                user = self._user(values[0])
                moment = ledger.read * MICROSECONDS if time is None else self._clock.parse(values[time])  # type: ignore[union-attr]
                add(user, item, moment, math.nan if rating is None else parse_rating(values[rating]))
            except BadRowError as error:
                ledger.bad(self._table.place(number), error)
        self._check_events()
        self._book()

    def _user(self, raw: Any) -> int:
        code = self._builder.users.get(raw) if type(raw) is str else None
        return self._builder.user_code(self._users.parse(raw)) if code is None else code

    def _item(self, raw: Any, texts: Sequence[Any]) -> int:
        code = self._builder.item_codes.get(raw) if type(raw) is str else None
        if code is None:
            item_id = self._items.parse(raw)
            if self._texts is not None and item_id not in self._builder.item_codes:
                if item_id not in self._builder.told:
                    self._texts.parse(item_id, texts)  # tells what is wrong: no row of the item has a usable title
                title, text = self._builder.told[item_id]
                self._builder.add_item(item_id, *text)
                self._builder.items.read += 1
                self._builder.titles[self._builder.item_code(item_id)] = title
            code = self._builder.item_code(item_id)
        if self._texts is not None and self._builder.titles[code] != texts[0]:
            self._retitled += bool(parse_text(texts[0]))
        return code

    def _is_chosen(self, raw: Any) -> bool:
        event = str(raw).strip()
        if len(self._events) < MAX_EVENT_NAMES or event in self._events:
            self._events[event] += 1
        if event in self._options.events:
            return True
        self._builder.interactions.drop("event not chosen by --events", 1)
        return False

    def _check_events(self) -> None:
        absent = [event for event in self._options.events if event not in self._events]
        if "event" in self.roles and absent:
            told = ", ".join(repr(name) for name, _ in self._events.most_common(20))
            raise DataError(
                f"{self._table.source}: no row has the event {', '.join(absent)} in column {self.roles['event']};"
                f" there are: {told}. Name them with --events"
            )

    def _rating(self) -> str | None:
        rating = optional(self._table, self._options.columns, "rating")
        if rating is not None and self._options.columns.rating is None and self._options.min_rating is None:
            values = [value for value in self._table.column(rating) if value is not None and not is_missing(str(value))]
            if values and not any(is_rating(value) for value in values):
                self._builder.warnings.append(
                    f"{self._table.source.label}: column {rating} holds no numbers (such as {values[0]!r:.40}), so it"
                    " is not taken for the rating; name another with --rating-column"
                )
                return None
        if rating is None and self._options.min_rating is not None:
            raise DataError(
                f"{self._table.place(1)}: --min-rating needs ratings, and no rating column was recognised; name it with"
                f" --rating-column. The columns are: {', '.join(self._table.header)}"
            )
        return rating

    def _check_distinct(self) -> None:
        """Refuse one column for two of who, what, when and how much.

        Raises:
            DataError: there is one.
        """
        by_column: dict[str, str] = {}
        for role, name in self.roles.items():
            if name in by_column:
                raise DataError(
                    f"{self._table.source}: column {name} would be the {by_column[name]} and the {role}: name another"
                    f" with {flag(by_column[name])} or {flag(role)}"
                )
            by_column[name] = role

    def _time(self, name: str) -> TimeColumn:
        table = self._table
        try:
            return TimeColumn(table.column(name), self._options.time_format, lambda: table.column(name, 1 << 62))
        except AmbiguousDatesError as error:
            raise DataError(
                f"{table.source}: column {name} has dates such as {error.example!r}, and none tells whether the day or"
                " the month comes first; say it with --time-format, for example '%m/%d/%Y %H:%M' or '%d/%m/%Y %H:%M'"
            ) from None

    def _book(self) -> None:
        builder, table, columns = self._builder, self._table, self._options.columns
        values = {
            what: described
            for what, described in (("user ids", self._users.described()), ("item ids", self._items.described()))
            if described is not None
        }
        values["time"] = "none: rows are in order" if self._clock is None else self._clock.described()
        roles = self.roles
        if self._texts is not None:
            roles = roles | self._texts.roles
            values |= self._texts.values()
            builder.warnings += self._texts.warnings()
        if self._clock is None:
            builder.warnings.append(f"{table.source.label}: without a time column, rows are taken in their order")
        if self._clock is not None:
            builder.warnings += [
                f"{table.source.label}: {doubt}" for doubt in self._clock.doubts(table.types.get(roles["time"]))
            ]
        if self._retitled:
            builder.warnings.append(
                f"{table.source.label}: {self._retitled:,} rows have another title than the first row of their item,"
                " whose title is kept"
            )
        event = find(table, columns, "event")
        if event is not None and "event" not in roles:
            kinds = sorted({str(value).strip() or "''" for value in table.column(event)})[:8]
            builder.warnings.append(
                f"{table.source.label}: all events count as interactions; column {event} has {', '.join(kinds)}: choose"
                " with --events"
            )
        looked_for = ("time", "rating", "categories") if self._texts is not None else ("time", "rating")
        book(table, "interactions", roles, values, looked_for, builder)


def is_rating(value: Any) -> bool:
    """Whether a value is a number."""
    try:
        return not math.isnan(parse_rating(value))
    except BadRowError:
        return False


def parse_rating(value: Any) -> float:
    """A rating; NaN where there is none.

    Raises:
        BadRowError: it is there, but not a number.
    """
    try:
        rating = math.inf if value is True or value is False else float(value)
    except (ValueError, TypeError):
        if value is None or is_missing(str(value)):
            return math.nan
        raise BadRowError("unparsable rating", f"the rating {value!r} is not a number; {OTHER_RATING}") from None
    if rating in (math.inf, -math.inf):
        raise BadRowError("unparsable rating", f"the rating {value!r} is not a number; {OTHER_RATING}")
    return rating
