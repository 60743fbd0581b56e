"""MIND's news: `behaviors.tsv` and `news.tsv`, both without header."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import polars as pl

from training.data.importing.columns import Columns
from training.data.importing.delimited import DelimitedTable
from training.data.importing.dialect import Quoting, Wished
from training.data.importing.ledger import BadRowError, Ledger, OnBadRow
from training.data.importing.source import Advance, Source, by_name
from training.data.importing.table import Row, Table

FORMAT = "MIND"
BEHAVIORS = ("impression", "user", "time", "history", "impressions")
NEWS = ("news", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
COLUMNS = Columns(
    user="user",
    item="news",
    time="time",
    item_id="news",
    title="title",
    description="abstract",
    categories="category",
    separator="|",
)
TIME_FORMAT = "%m/%d/%Y %I:%M:%S %p"
IMPRESSION = re.compile(r"(\S+)-([01])")
TAB = Wished("\t", Quoting.NONE)


def open_tables(sources: Sequence[Source], encoding: str | None) -> tuple[Table, Table] | None:
    """Clicks and news; None where `sources` are not MIND's.

    Raises:
        DataError: a file cannot be read, or there are several of one.
    """
    if not {"behaviors.tsv", "news.tsv"} <= {source.name for source in sources}:
        return None
    files = by_name(sources, ("behaviors.tsv", "news.tsv"))
    widths = [len(DelimitedTable(files[name], encoding, TAB).first_row) for name in ("behaviors.tsv", "news.tsv")]
    if widths != [len(BEHAVIORS), len(NEWS)]:
        return None
    return _Clicks(files["behaviors.tsv"], encoding), DelimitedTable(files["news.tsv"], encoding, TAB, NEWS, FORMAT)


class _Clicks(Table):
    """What users clicked: their history, once, before their first impression, then the clicked news of each one.

    A row of the file is as many rows as it has clicks, so clicks are what is counted. What was shown and not clicked is
    no interaction.
    """

    syntax = "MIND's behaviors"

    def __init__(self, source: Source, encoding: str | None) -> None:
        self._table = DelimitedTable(source, encoding, TAB, BEHAVIORS, FORMAT)
        super().__init__(source, ("user", "news", "time"))
        self.types = {"time": pl.Datetime()}

    def rows(self, wanted: Sequence[str], ledger: Ledger, advance: Advance = lambda _: None) -> Iterator[Row]:
        """See `Table.rows`."""
        earliest = self._earliest()
        for line, (user, time, history, impressions) in self._table.rows(BEHAVIORS[1:], ledger, advance):
            ledger.read -= 1
            shown = impressions.split()
            clicks = [found[1] for found in map(IMPRESSION.fullmatch, shown) if found and found[2] == "1"]
            if any(IMPRESSION.fullmatch(each) is None for each in shown):
                ledger.read += 1
                detail = "an impression is not of the form N12345-0 or N12345-1; mend the row"
                ledger.bad(self.place(line), BadRowError("broken impressions", detail))
                continue
            told = [(news, earliest[user]) for news in history.split()] if user in earliest else []
            earliest.pop(user, None)
            for news, moment in [*told, *((news, _moment(time)) for news in clicks)]:
                ledger.read += 1
                values = {"user": user, "news": news, "time": moment}
                yield line, [values[name] for name in wanted]

    def taken_for(self) -> Mapping[str, str]:
        """See `Table.taken_for`."""
        return {**self._table.taken_for(), "rows": "clicks, a user's history once"}

    def _earliest(self) -> dict[str, datetime | str]:
        """Each user's first impression, before which the history is."""
        earliest: dict[str, datetime | str] = {}
        for _, (user, time) in self._table.rows(("user", "time"), Ledger(OnBadRow.SKIP)):
            moment, before = _moment(time), earliest.get(user)
            if not isinstance(before, datetime) or (isinstance(moment, datetime) and moment < before):
                earliest[user] = moment
        return earliest


def _moment(text: str) -> datetime | str:
    try:
        return datetime.strptime(text.strip(), TIME_FORMAT)
    except ValueError:
        return text
